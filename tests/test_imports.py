"""Which room may import which, and that the launcher's rooms load without the training stack."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# Each layer imports from those above it (and from itself). docs/decisions.md says where this departs from
# the first design: the planner assembles the stages' pure planning halves, so `stages` stand before `plan`.
LAUNCHER_LAYERS = [
    ["errors", "names", "catalog", "networks", "status", "machine", "digests", "dimensions", "remote_data"],
    ["spec"],
    ["memory", "stages", "kube"],
    ["planning"],
    ["plan", "alone"],
    ["progress"],
    [
        "backends",
        "checkpoints",
        "record",
        "garbage",
        "fetch",
        "report",
        "reporting",
        "publishing",
        "models",
        "serving",
        "talking",
        "compare",
        "data_check",
        "data_show",
    ],
    ["run", "images"],
    ["staging"],
    ["pilots", "doctor"],
    ["commands", "cli"],
]

MODULES = [
    path for room in ("artifacts", "launcher", "train") for path in sorted((ROOT / room).rglob("*.py"))
]


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported_modules(path: Path) -> set[str]:
    """Absolute names of all that `path` imports, anywhere in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def layer(module: str) -> int | None:
    room = module.split(".")[1] if "." in module else None
    return next((depth for depth, rooms in enumerate(LAUNCHER_LAYERS) if room in rooms), None)


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_import_direction(path: Path) -> None:
    name = module_name(path)
    package = name.split(".")[0]
    forbidden = {"artifacts": ("launcher", "train"), "launcher": ("train",), "train": ("launcher",)}[package]
    for imported in imported_modules(path):
        assert imported.split(".")[0] not in forbidden, f"{name} imports {imported}"
        if package == "launcher" and imported.startswith("launcher."):
            own, other = layer(name), layer(imported)
            assert other is not None, f"{imported} (imported by {name}) has no layer in LAUNCHER_LAYERS"
            assert name == "launcher" or own is not None, f"{name} has no layer in LAUNCHER_LAYERS"
            assert own is None or other <= own, f"{name} imports {imported}, which stands after it"


def test_launcher_and_artifacts_load_without_the_training_stack() -> None:
    names = [module_name(path) for path in MODULES if not path.is_relative_to(ROOT / "train")]
    blocked = ["torch", "ray", "transformers", "deepspeed", "peft", "accelerate", "datasets"]
    program = (
        "import importlib, sys\n"
        f"sys.modules.update(dict.fromkeys({blocked!r}))\n"  # None in sys.modules: importing it raises
        f"for name in {names!r}:\n"
        "    importlib.import_module(name)\n"
    )
    result = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_loop_loads_without_ray() -> None:
    program = "import sys; sys.modules['ray'] = None; import train.loop"
    result = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
