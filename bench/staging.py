"""Speed of staging to S3, beside `aws s3 cp` (and s5cmd) to the same bucket in the same run.

    python bench/staging.py s3://bucket/prefix [--gigabytes 2] [--files 10000] [--rounds 3] [--peers FOLDER]

Needs what the AWS SDK needs (AWS_ENDPOINT_URL_S3, credentials, region). Files lie in the page cache, the
prefix holds nothing. Slipway: every byte hashed (SHA-256) and sent with the service's checksum, then the
marker. "Again": once more, where the marker says that nothing is to be done. "Again, unmarked": after
an attempt that was cut off just before the marker, so that each file is hashed and compared.

Seconds are of whole processes, from start to end; "work" leaves out the start of Python, its imports and the
first connection. The systems take turns and each row is the fastest of its rounds: neighbours only ever slow
one down.

awscli is installed into `--peers` (requirements/bench-staging.in), s5cmd built there where `go` is present.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
S5CMD = "github.com/peak/s5cmd/v2@v2.3.0"
SMALL_BYTES = (1024, 32 * 1024)
BLOCK_BYTES = 4_000_000

SLIPWAY = """
import sys, time
from pathlib import Path
from artifacts.manifest import ArtifactWriter, is_complete
from artifacts.store import open_store
store, folder, mark = open_store(sys.argv[1]), Path(sys.argv[2]), sys.argv[3] == "mark"
store.exists("nothing")
started_s = time.perf_counter()
if not is_complete(store, "data/key"):
    writer = ArtifactWriter(store, "data/key")
    writer.add_folder(folder)
    if mark:
        writer.commit()
print(time.perf_counter() - started_s)
"""


@dataclass(frozen=True)
class Measure:
    wall_s: float
    work_s: float
    cpu_s: float  # of the client
    peak_bytes: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("uri", metavar="s3://bucket/prefix")
    parser.add_argument("--gigabytes", type=float, default=2.0)
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peers", type=Path, help="folder to keep the peers in for another time")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        peers = (options.peers or Path(scratch, "peers")).absolute()
        aws, s5cmd = install_awscli(peers), build_s5cmd(peers)
        inputs = {
            f"one file of {options.gigabytes:g} GB": make_large(Path(scratch, "large"), options.gigabytes),
            f"{options.files} small files": make_small(Path(scratch, "small"), options.files),
        }
        load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
        print(f"{os.cpu_count()} cores; load of the last 1, 5, 15 minutes: {load}; {options.rounds} rounds")
        for title, folder in inputs.items():
            show(title, folder, measure_all(options.uri, folder, options.rounds, aws, s5cmd))


def measure_all(
    uri: str, folder: Path, rounds: int, aws: Path, s5cmd: Path | None
) -> dict[str, list[Measure]]:
    sys.path.insert(0, str(ROOT))
    from artifacts.store import open_store

    results: dict[str, list[Measure]] = {}

    def take(name: str, command: list[str | Path]) -> None:
        results.setdefault(name, []).append(measure(command))

    base = f"{uri.rstrip('/')}/bench-{uuid.uuid4().hex[:8]}"
    for number in range(rounds):

        def ours(suffix: str, mark: str, number: int = number) -> list[str | Path]:
            return [sys.executable, "-c", SLIPWAY, f"{base}/{number}-{suffix}", folder, mark]

        peers: dict[str, Callable[[str], list[str | Path]]] = {
            "aws s3 cp": lambda to: [aws, "s3", "cp", "--quiet", "--recursive", folder, to],
        }
        if s5cmd is not None:
            peers["s5cmd cp"] = lambda to: [s5cmd, "--log", "error", "cp", f"{folder}/", f"{to}/"]
        take("slipway", ours("marked", "mark"))
        take("slipway, again", ours("marked", "mark"))
        take("slipway, again, unmarked", unmarked(base, number, ours))
        for name, command in peers.items():
            take(name, command(f"{base}/{number}-{name.split()[0]}"))
        store = open_store(base)
        store.delete_many([info.key for info in store.list("")])
    return results


def unmarked(base: str, number: int, ours: Callable[[str, str], list[str | Path]]) -> list[str | Path]:
    from artifacts.store import open_store

    open_store(f"{base}/{number}-marked").delete("data/key/COMPLETE.json")
    return ours("marked", "no mark")


def measure(command: list[str | Path]) -> Measure:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    started_s = time.perf_counter()
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    output = process.stdout.read().split()
    _, status, usage = os.wait4(process.pid, 0)
    wall_s = time.perf_counter() - started_s
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{command[0]} ended with {process.returncode}")
    return Measure(
        wall_s,
        float(output[-1]) if output else wall_s,
        usage.ru_utime + usage.ru_stime,
        usage.ru_maxrss * 1024,
    )


def show(title: str, folder: Path, results: dict[str, list[Measure]]) -> None:
    sizes = [path.stat().st_size for path in folder.rglob("*") if path.is_file()]
    fastest = {name: min(rows, key=lambda row: row.wall_s) for name, rows in results.items()}
    peer_s = fastest["aws s3 cp"].wall_s
    print(f"\n{title}: {sum(sizes) / 1e6:.0f} MB\n")
    print(f"| {'':24} | seconds | MB/s | files/s | × aws | work, s | CPU s | peak RSS, MB | all rounds, s |")
    print(f"|{'-' * 26}|---:|---:|---:|---:|---:|---:|---:|---|")
    for name, row in fastest.items():
        rounds = " ".join(f"{each.wall_s:.1f}" for each in results[name])
        print(
            f"| {name:24} | {row.wall_s:.2f} | {sum(sizes) / row.wall_s / 1e6:.0f} "
            f"| {len(sizes) / row.wall_s:.0f} | {peer_s / row.wall_s:.2f} | {row.work_s:.3f} "
            f"| {row.cpu_s:.1f} | {row.peak_bytes / 1e6:.0f} | {rounds} |"
        )
    first, again = (min(row.work_s for row in results[name]) for name in ("slipway", "slipway, again"))
    print(f"\nThe second time takes 1/{first / again:.0f} of the first time's work.")


def make_large(folder: Path, gigabytes: float) -> Path:
    folder.mkdir()
    with (folder / "large.bin").open("wb") as stream:
        for start in range(0, int(gigabytes * 1e9), BLOCK_BYTES):
            stream.write(os.urandom(min(BLOCK_BYTES, int(gigabytes * 1e9) - start)))
    return folder


def make_small(folder: Path, files: int) -> Path:
    chance = random.Random(0)
    for number in range(files):
        path = folder / f"{number // 500:03}/{number:06}.bin"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(chance.randbytes(chance.randint(*SMALL_BYTES)))
    return folder


def install_awscli(peers: Path) -> Path:
    program = peers / "awscli/bin/aws"
    if not program.exists():
        uv, requirements = Path(sys.executable).parent / "uv", ROOT / "requirements/bench-staging.in"
        subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, peers / "awscli"], check=True)
        install = [uv, "pip", "install", "--quiet", "--python", peers / "awscli/bin/python"]
        subprocess.run([*install, "-r", requirements], check=True)
    return program


def build_s5cmd(peers: Path) -> Path | None:
    program = peers / "s5cmd"
    go = shutil.which("go")
    if not program.exists() and go is not None:
        environment = {**os.environ, "GOBIN": str(peers)}
        built = subprocess.run([go, "install", S5CMD], env=environment, stderr=subprocess.PIPE, text=True)
        if built.returncode:
            print(f"s5cmd can't be built: {built.stderr.strip().splitlines()[-1]}")
    return program if program.exists() else None


if __name__ == "__main__":
    main()
