"""An image in which the pilot is real and every stage only pretends: runs of half a minute, to try things on
whoever drives them."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from pathlib import Path

from launcher.images.builders import Target, push_commands
from launcher.images.context import build_context, settle
from launcher.images.registry import find_digest
from launcher.spec.kubernetes import KubernetesCluster

ROOT = Path(__file__).resolve().parents[2]
_FOLDER = Path(__file__).with_name("pretend")


def build_pretend(profile: KubernetesCluster) -> str:
    """Build and push the pilot's image, with `pretend/train` for the code of stages; its reference."""
    image = profile.image
    with build_context(ROOT) as context:
        shutil.rmtree(context / "train")
        shutil.copytree(_FOLDER / "train", context / "train", ignore=shutil.ignore_patterns("__pycache__"))
        settle(context)
        target = Target(
            name="pilot",
            context=str(context),
            arguments={"BASE": image.base or ""},
            options=image.builder_options,
            insecure=image.insecure,
        )
        files = sorted(path for path in context.rglob("*") if path.is_file())
        digest = hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()[:16]
        tag = f"{image.registry}/pretend:{digest}"
        for words in push_commands(image.builder, target, tag):  # type: ignore[arg-type]
            done = subprocess.run(words, capture_output=True, text=True, timeout=900)
            assert done.returncode == 0, f"{' '.join(words)}: {done.stderr[-2000:]}"
    pushed = find_digest(tag, insecure=image.insecure)
    assert pushed is not None
    return f"{image.registry}/pretend@{pushed}"
