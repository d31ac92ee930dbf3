"""What a wheel of llama.cpp depends on, how it is compiled, and the converter that goes with it. Standard
library only: the script `images/llama-cpp/build-wheel` runs this before anything is installed.

llama-cpp-python has no wheel in the index. Its source distribution holds llama.cpp whole, with the converter
(convert_hf_to_gguf.py, its package `conversion`, and `gguf-py`), of which a second wheel is made: converter
and library are of one version, and found wherever they are installed.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ClassVar

NAME = "llama-cpp-python"
#: The converter's package and wheel (as in `launcher.machine` and `train.gguf_files.convert`).
CONVERTER = "llama_cpp_converter"
#: Of the converter, below `vendor/llama.cpp/` in the source.
CONVERTER_PARTS = ("convert_hf_to_gguf.py", "conversion", "gguf-py/gguf", "LICENSE")
#: x86-64-v3 (AVX2, FMA, F16C, BMI2: Intel since 2013, AMD since 2015) and, on other machines, their baseline:
#: never what only the compiling machine has. No tools, tests, image readers, nor the library that programs of
#: llama.cpp share, which takes longer to compile than all that Python uses.
OPTIONS = {
    "GGML_NATIVE": "OFF",
    "GGML_SSE42": "ON",
    "GGML_AVX": "ON",
    "GGML_AVX2": "ON",
    "GGML_BMI2": "ON",
    "GGML_FMA": "ON",
    "GGML_F16C": "ON",
    "LLAVA_BUILD": "OFF",
    "LLAMA_BUILD_COMMON": "OFF",
    "LLAMA_BUILD_TESTS": "OFF",
}
#: llama.cpp's own install rules put everything a second time beside the package: into site-packages/lib.
EXCLUDED = ("lib/**", "include/**", "bin/**")
_EPOCH = (1980, 1, 1, 0, 0, 0)  # ZIP's first day: equal sources give equal bytes


@dataclass(frozen=True, kw_only=True)
class Wheel:
    """The combination that a wheel is compiled for. Nothing else is in its key."""

    name: ClassVar[str] = "llama-cpp"
    files: ClassVar[int] = 2  # with the converter's

    version: str  # of llama-cpp-python
    platform: str  # Python, machine and C library, or the image that it is compiled in
    options: tuple[str, ...] = tuple(f"{name}={value}" for name, value in OPTIONS.items())

    @property
    def key(self) -> str:
        """64 hex digits."""
        text = json.dumps(asdict(self), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def prefix(self) -> str:
        """Its folder in a store."""
        return f"wheels/{self.name}/{self.key}"


def wheel_of(root: Path, platform: str) -> Wheel:
    """The wheel that the lock below `root` asks for. Raises KeyError where it lacks llama.cpp."""
    lock = (root / "requirements/gguf.lock").read_text()
    found = re.search(rf"^{NAME}==([^\s;\\]+)", lock, re.M)
    if found is None:
        raise KeyError(NAME)
    return Wheel(version=found[1], platform=platform)


def environment(cores: int) -> dict[str, str]:
    """Variables that the build reads."""
    options = " ".join(f"-D{name}={value}" for name, value in OPTIONS.items())
    return {"CMAKE_ARGS": options, "CMAKE_BUILD_PARALLEL_LEVEL": str(cores)}


def pip_commands(python: str, folder: str, tools: str, output: str) -> list[list[str]]:
    """What is run with the Python of an environment of its own: the locked tools, the locked source into
    `folder`, which holds `llama.lock`, and, once that is unpacked to `source/`, its compilation."""
    pip = [python, "-m", "pip", "--disable-pip-version-check"]
    locked = ["--no-deps", "--require-hashes", "--requirement"]
    unbuilt = ["--no-binary", NAME, "--no-build-isolation", "--dest", folder]
    excluded = f"--config-settings=wheel.exclude={';'.join(EXCLUDED)}"
    here = ["--no-deps", "--no-build-isolation", excluded, "--wheel-dir", output]
    return [
        [*pip, "install", "--quiet", *locked, tools],
        [*pip, "download", "--quiet", *unbuilt, *locked, f"{folder}/llama.lock"],
        [*pip, "wheel", *here, f"{folder}/source"],
    ]


def with_options_kept(cmake: str) -> str:
    """llama-cpp-python's CMakeLists.txt without what overrules an option of ours on its way to llama.cpp."""
    forced = re.compile(r"^ *set\((\w+) [^)]* FORCE\) *$\n", re.M)
    return forced.sub(lambda line: "" if line[1] in OPTIONS else line[0], cmake)


def split_lock(lock: str) -> tuple[str, str]:
    """llama.cpp's entry of the lock, and all others: what an index has as wheels."""
    entries = re.split(r"^(?=[A-Za-z0-9])", lock, flags=re.M)
    ours = [entry for entry in entries if entry.startswith(f"{NAME}==")]
    if not ours:
        raise KeyError(NAME)
    return ours[0], "".join(entry for entry in entries if entry not in ours)


def pack_converter(source: Path, version: str, output: Path) -> Path:
    """Make the converter's wheel of llama.cpp's folder `source`; returns it."""
    files = {f"{CONVERTER}/__init__.py": b""}
    for part in CONVERTER_PARTS:
        path = source / part
        found = [path] if path.is_file() else sorted(path.rglob("*"))
        files |= {
            f"{CONVERTER}/{each.relative_to(source).as_posix()}": each.read_bytes()
            for each in found
            if each.is_file() and "__pycache__" not in each.parts
        }
    return write_wheel(output, CONVERTER, version, files)


def write_wheel(folder: Path, name: str, version: str, files: Mapping[str, bytes]) -> Path:
    """A wheel of plain files (https://packaging.python.org/specifications/binary-distribution-format)."""
    info = f"{name}-{version}.dist-info"
    told = f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: {version}\n"
    tags = "Wheel-Version: 1.0\nGenerator: slipway\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    members = {**files, f"{info}/METADATA": told.encode(), f"{info}/WHEEL": tags.encode()}
    rows = [f"{path},sha256={_digest(data)},{len(data)}" for path, data in members.items()]
    record = "\n".join([*rows, f"{info}/RECORD,,", ""])
    target = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, data in {**members, f"{info}/RECORD": record.encode()}.items():
            entry = zipfile.ZipInfo(path, _EPOCH)
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, data, zipfile.ZIP_DEFLATED)
    return target


def _digest(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
