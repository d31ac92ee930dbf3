"""Environments of the peers, which are in no lock of ours."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
#: The environment's requirements, and whether it stands on top of this one's packages.
PEERS = {
    "trl": ("bench.in", True),
    "llamafactory": ("bench-llamafactory.in", False),
    "axolotl": ("bench-axolotl.in", False),
}


def peer_python(name: str, folder: Path | None = None) -> str:
    """The interpreter of a peer's environment in `folder` (default: beside this interpreter's packages).
    Installed on the first call. One that pins other versions of what we have shares nothing with ours."""
    folder = folder or Path(sys.prefix) / f"bench-{name}"
    python = folder / "bin" / "python"
    if python.exists():
        return str(python)
    requirements, on_top = PEERS[name]
    uv = Path(sys.executable).parent / "uv"
    subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, folder], check=True)
    if on_top:
        (packages,) = folder.glob("lib/python*/site-packages")
        (packages / "overlay.pth").write_text(sysconfig.get_path("purelib") + "\n")
    install = [uv, "pip", "install", "--quiet", "--python", python, *(["--no-deps"] if on_top else [])]
    subprocess.run([*install, "-r", ROOT / "requirements" / requirements], check=True)
    return str(python)
