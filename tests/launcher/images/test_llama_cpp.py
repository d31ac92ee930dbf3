"""What decides how llama.cpp is compiled and its converter packed, and that the script says so without
compiling."""

from __future__ import annotations

import base64
import csv
import dataclasses
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from launcher.images import llama_cpp
from launcher.images.llama_cpp import Wheel, pack_converter, pip_commands, split_lock, wheel_of
from launcher.stages.code import ROOT

SCRIPT = ROOT / "images/llama-cpp/build-wheel"
WHEEL = Wheel(version="0.3.36", platform="Python 3.11, x86_64, glibc 2.36")
LOCK = (ROOT / "requirements/gguf.lock").read_text()


def run(*words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **variables}
    return subprocess.run([sys.executable, SCRIPT, *words], capture_output=True, text=True, env=environment)


def test_every_part_of_the_combination_is_in_the_key() -> None:
    changes = {
        "version": "0.4",
        "platform": "Python 3.12, x86_64, glibc 2.36",
        "options": ("GGML_NATIVE=ON",),
    }
    others = [dataclasses.replace(WHEEL, **{name: value}) for name, value in changes.items()]
    assert len({wheel.key for wheel in [WHEEL, *others]}) == len(dataclasses.fields(Wheel)) + 1
    assert WHEEL.prefix == f"wheels/llama-cpp/{WHEEL.key}" and len(WHEEL.key) == 64


def test_a_wheel_runs_on_other_machines() -> None:
    assert "GGML_NATIVE=OFF" in WHEEL.options
    assert "-DGGML_AVX2=ON" in llama_cpp.environment(4)["CMAKE_ARGS"].split()
    assert not any("AVX512" in option for option in WHEEL.options)


def test_only_what_is_locked_is_fetched() -> None:
    assert f"{llama_cpp.NAME}=={wheel_of(ROOT, 'here').version} " in LOCK
    entry, others = split_lock(LOCK)
    assert entry.startswith("llama-cpp-python==") and entry.count("--hash=sha256:") == 1
    assert "llama-cpp-python" not in others and "\ndiskcache==" in f"\n{others}"
    assert len(entry) + len(others) == len(LOCK)
    setup, download, compilation = pip_commands("python", "/f", "tools.lock", "/out")
    assert "--require-hashes" in setup and "--require-hashes" in download
    assert "--no-build-isolation" in download and "--no-build-isolation" in compilation
    assert not any("index" in word or "://" in word for word in [*setup, *download, *compilation])
    with pytest.raises(KeyError):
        split_lock("numpy==2 \\\n    --hash=sha256:0\n")


def test_options_are_not_overruled() -> None:
    cmake = (
        "if (LLAMA_BUILD)\n"
        '    set(LLAMA_BUILD_COMMON ON CACHE BOOL "Build llama.cpp common library" FORCE)\n'
        '    set(LLAMA_CURL OFF CACHE BOOL "llama.cpp: enable curl" FORCE)\n'
        "    set(GGML_NATIVE ON)\n"
        "endif()\n"
    )
    assert llama_cpp.with_options_kept(cmake) == "".join(
        line for line in cmake.splitlines(keepends=True) if "COMMON" not in line
    )


def test_the_build_s_tools_are_locked() -> None:
    tools = (ROOT / "requirements/gguf-build.lock").read_text()
    assert all(f"\n{name}==" in f"\n{tools}" for name in ("scikit-build-core", "cmake", "ninja"))


def test_the_converter_is_a_wheel(tmp_path: Path) -> None:
    source = tmp_path / "llama.cpp"
    for name in ("convert_hf_to_gguf.py", "conversion/base.py", "gguf-py/gguf/vocab.py", "LICENSE"):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text(f"# {name}")
    (source / "conversion/__pycache__").mkdir()
    (source / "conversion/__pycache__/base.pyc").write_bytes(b"")
    (source / "gguf-py/tests").mkdir()
    (source / "gguf-py/tests/test.py").write_text("")
    wheel = pack_converter(source, "0.3.36", tmp_path)
    before = wheel.read_bytes()
    os.utime(source / "LICENSE", (1, 1))
    assert pack_converter(source, "0.3.36", tmp_path).read_bytes() == before
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        record = next(name for name in names if name.endswith("RECORD"))
        rows = list(csv.reader(archive.read(record).decode().splitlines()))
        for path, digest, size in rows:
            if digest:
                data = archive.read(path)
                found = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
                assert (digest, size) == (f"sha256={found}", str(len(data)))
    assert {path for path, *_ in rows} == names
    package = {name for name in names if name.startswith("llama_cpp_converter/")}
    assert package == {
        f"llama_cpp_converter/{name}"
        for name in (
            "__init__.py",
            "convert_hf_to_gguf.py",
            "conversion/base.py",
            "gguf-py/gguf/vocab.py",
            "LICENSE",
        )
    }


def test_a_dry_run_tells_key_and_commands(tmp_path: Path) -> None:
    said = run("--dry-run", SLIPWAY_CACHE=str(tmp_path))
    told, _ = json.JSONDecoder().raw_decode(said.stdout)
    assert (said.returncode, told["cached"], len(told["key"])) == (0, False, 64)
    assert "--require-hashes" in said.stdout and not list(tmp_path.iterdir())


def test_without_a_compiler_it_says_so_before_anything(tmp_path: Path) -> None:
    said = run(SLIPWAY_CACHE=str(tmp_path / "cache"), PATH=str(tmp_path))
    assert (said.returncode, said.stdout) == (2, "")
    assert said.stderr.startswith("error: there is no C++ compiler") and said.stderr.count("\n") == 1


def test_what_is_kept_is_not_compiled_again(tmp_path: Path) -> None:
    told, _ = json.JSONDecoder().raw_decode(run("--dry-run", SLIPWAY_CACHE=str(tmp_path)).stdout)
    kept = tmp_path / "llama-cpp" / told["key"][:16]
    kept.mkdir(parents=True)
    for name in ("a.whl", "b.whl"):
        (kept / name).write_text(name)
    out = tmp_path / "out"
    said = run("--output", str(out), SLIPWAY_CACHE=str(tmp_path), PATH=str(tmp_path))
    assert (said.returncode, sorted(path.name for path in out.iterdir())) == (0, ["a.whl", "b.whl"])


@pytest.mark.products  # makes an environment: seconds
@pytest.mark.skipif(not shutil.which("g++"), reason="looks for a compiler first")
def test_without_a_network_one_line_says_what_is_missing(tmp_path: Path) -> None:
    nowhere = {"PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_RETRIES": "0", "PIP_NO_CACHE_DIR": "1"}
    said = run(SLIPWAY_CACHE=str(tmp_path), **nowhere)
    assert said.returncode == 2 and said.stderr.endswith(
        "error: llama.cpp: the build's tools could not be installed (see above)\n"
    )
    assert not any((tmp_path / "llama-cpp").iterdir())


def test_the_image_s_stage_has_all_that_the_script_reads(tmp_path: Path) -> None:
    """What the Dockerfile copies there, and a Python with nothing installed."""
    stage = (ROOT / "images/Dockerfile").read_text().split(" AS llama-cpp\n")[1].split("\nFROM ")[0]
    for line in re.findall(r"^COPY (.*) /src/(.*)$", stage, re.M):
        target = tmp_path / line[1]
        for source in map(ROOT.joinpath, line[0].split()):
            if source.is_dir():
                shutil.copytree(source, target)
            else:
                into = target / source.name if line[1].endswith("/") else target
                into.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, into)
    command = [sys.executable, "-I", "-S", tmp_path / "images/llama-cpp/build-wheel", "--dry-run"]
    said = subprocess.run(command, capture_output=True, text=True)
    assert (said.returncode, said.stderr) == (0, "") and "build-wheel --output /wheel" in stage
