"""Which code makes which stage's output, as a digest that only a change of what runs changes.

A stage's sources are its entry module and every module of `train/` and `artifacts/` that it imports, at the
top or inside functions, directly or through others. Each is hashed as a syntax tree without comments,
docstrings and positions. Modules that move bytes, but do not decide them, are left out. Beside the sources
stand the locked versions of the libraries that the output depends on.
"""

from __future__ import annotations

import ast
import hashlib
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from artifacts.contract import StageKind, canonical_json
from launcher.digests import Digests
from launcher.stages.image_files import digest_files

ROOT = Path(__file__).resolve().parents[2]
TRAIN_LOCK = Path("requirements/train.lock")
#: Where the versions of what stages use are locked.
LOCKS = (TRAIN_LOCK, Path("requirements/gguf.lock"))

#: The module each stage starts in. `data` and `publish` run in the launcher.
ENTRIES: dict[StageKind, str] = {
    StageKind.DATA: "launcher.stages.data_run",
    StageKind.MODEL: "train.model",
    StageKind.ORIGINAL: "train.model",
    StageKind.ADAPTER: "train.adapter",
    StageKind.PREPARE: "train.prepare",
    StageKind.TRAIN: "train.entrypoint",
    StageKind.MERGE: "train.merge",
    StageKind.QUANTIZE: "train.quantize",
    StageKind.GGUF: "train.gguf",
    StageKind.PREDICT: "train.predict",
    StageKind.PUBLISH: "launcher.publishing",
}
#: Libraries whose version the output depends on.
LIBRARIES: dict[StageKind, tuple[str, ...]] = {
    StageKind.DATA: ("pyarrow",),
    StageKind.MODEL: ("safetensors", "tokenizers", "torch", "transformers"),
    StageKind.PREPARE: ("jinja2", "tokenizers", "transformers"),
    StageKind.TRAIN: ("accelerate", "deepspeed", "peft", "torch", "transformers"),
    StageKind.ORIGINAL: ("safetensors", "tokenizers", "torch", "transformers"),
    StageKind.ADAPTER: ("safetensors",),
    StageKind.MERGE: ("peft", "safetensors", "torch", "transformers"),
    StageKind.QUANTIZE: ("gptqmodel", "optimum", "torch", "transformers"),
    StageKind.GGUF: ("llama-cpp-python", "transformers"),
    StageKind.PUBLISH: ("huggingface-hub",),
    StageKind.PREDICT: ("peft", "rouge-score", "sacrebleu", "tokenizers", "torch", "transformers"),
}
_NAME = re.compile(r"(?:train|artifacts)(?:\.[a-z_][a-z0-9_]*)+")
#: Packages whose modules can be part of a stage's code.
_PACKAGES = ("artifacts", "launcher.publishing", "launcher.stages", "train")
#: How stages are started and reach their files, and what they say meanwhile: no part of what they make.
_PLUMBING = {
    "artifacts.cache",
    "artifacts.cache_files",
    "artifacts.contract",
    "artifacts.contract.codec",
    "artifacts.contract.inputs",
    "artifacts.contract.plan",
    "artifacts.contract.products",
    "artifacts.contract.training",
    "artifacts.contract.words",
    "artifacts.download",
    "artifacts.events",
    "artifacts.local",
    "artifacts.manifest",
    "artifacts.s3",
    "artifacts.s3_client",
    "artifacts.s3_reader",
    "artifacts.s3_transfer",
    "artifacts.segments",
    "artifacts.store",
    "launcher.publishing.bucket",
    "launcher.publishing.hub",
    "launcher.publishing.hub_errors",
    "launcher.publishing.listing",
    "launcher.publishing.ready",
    "launcher.stages.done",
    "train.attempts",
    "train.engines.base",
    "train.engines.ray",
    "train.engines.torchrun",
    "train.lean_deepspeed",
    "train.preload",
    "train.processes",
    "train.stage",
}


class CodeDigests:
    """Digests of the stages' code under `root`; parsed files are remembered in `digests`."""

    def __init__(self, digests: Digests | None = None, root: Path = ROOT) -> None:
        self._digests, self._root = digests or Digests(), root
        self._versions: dict[str, str] | None = None

    def __call__(self, kind: StageKind) -> str:
        """Hex SHA-256 over the stage's sources and the locked versions of its libraries; of the image, over
        all files that go in."""
        if kind is StageKind.IMAGE:
            files = digest_files(self._root, self._content)
            return hashlib.sha256(canonical_json(files)).hexdigest()
        sources = {name: self._module(path)["tree"] for name, path in self.sources(kind).items()}
        if self._versions is None:
            self._versions = {}
            for lock in LOCKS:
                self._versions |= locked_versions(self._root / lock)
        libraries = {name: self._versions.get(name, "") for name in LIBRARIES[kind]}
        return hashlib.sha256(canonical_json({"sources": sources, "libraries": libraries})).hexdigest()

    def sources(self, kind: StageKind) -> dict[str, Path]:
        """The stage's modules, name to file."""
        found: dict[str, Path] = {}
        waiting = [ENTRIES[kind]]
        while waiting:
            name = waiting.pop()
            path = self._file(name)
            if path is None or name in found:
                continue
            found[name] = path
            waiting += self._module(path)["imports"]
        return {name: path for name, path in sorted(found.items()) if name not in _PLUMBING}

    def _file(self, name: str) -> Path | None:
        if not any(name == package or name.startswith(f"{package}.") for package in _PACKAGES):
            return None
        base = self._root.joinpath(*name.split("."))
        return next(
            (path for path in (base.with_suffix(".py"), base / "__init__.py") if path.is_file()), None
        )

    def _content(self, path: Path) -> str:
        """Of a module what it does, of any other file its bytes."""
        return self._module(path)["tree"] if path.suffix == ".py" else self._digests.sha256(path)[1]

    def _module(self, path: Path) -> dict[str, Any]:
        facts: dict[str, Any] = self._digests.derived(path, "module", _parse)[1]
        return facts


def _parse(path: Path) -> dict[str, Any]:
    with warnings.catch_warnings():  # about their style, of no concern here
        warnings.simplefilter("ignore")
        tree = ast.parse(path.read_bytes())
    return {"tree": tree_digest(tree), "imports": sorted(set(imported_names(tree)))}


def tree_digest(tree: ast.AST) -> str:
    """SHA-256 of a syntax tree without docstrings and positions (comments are not in it)."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            body = node.body
            if ast.get_docstring(node, clean=False) is not None:
                node.body = body[1:] or [ast.Pass()]
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest()


def imported_names(tree: ast.AST) -> Iterator[str]:
    """Every module that the tree may import, `from a import b` counting as `a` and `a.b`; also names in
    strings, as `importlib.import_module("train.merge")` takes them."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and _NAME.fullmatch(node.value):
            yield node.value


def locked_versions(lock: Path) -> dict[str, str]:
    """Versions in a requirements lock, by lower-case name; empty where there is no lock."""
    try:
        text = lock.read_text()
    except OSError:
        return {}
    return {
        name.lower(): version for name, version in re.findall(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)", text, re.M)
    }
