"""`python -m train.build_ops`: build DeepSpeed's C++ operators once, while setting up, so that no run compiles.

They land in `<sys.prefix>/torch_extensions`, for a portable CPU target: an image built on one machine runs on
another. `prepare()` makes DeepSpeed find them there.
"""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path

FOLDER = Path(sys.prefix) / "torch_extensions"
#: AVX2 and FMA: every x86-64 server since 2015 (https://gitlab.com/x86-psABIs/x86-64-ABI, level 3).
PORTABLE_TARGETS = {"x86_64": ("-march=x86-64-v3", "-D__AVX256__"), "aarch64": ("-march=armv8-a", "-D__NEON__")}


def prepare() -> None:
    """Point DeepSpeed at the built operators. Call before the first import of deepspeed.

    Sets environment variables and two methods of DeepSpeed's CPU builder, which would otherwise ask for
    `-march=native` after a second of py-cpuinfo.
    """
    os.environ.setdefault("TORCH_EXTENSIONS_DIR", str(FOLDER))
    scripts = str(Path(sys.executable).parent)  # ninja lies beside the interpreter
    if scripts not in os.environ.get("PATH", "").split(os.pathsep):
        os.environ["PATH"] = os.pathsep.join([scripts, os.environ.get("PATH", os.defpath)])

    from deepspeed.ops.op_builder.cpu.builder import CPUOpBuilder

    march, simd = PORTABLE_TARGETS.get(platform.machine(), ("", "-D__SCALAR__"))
    CPUOpBuilder.cpu_arch = lambda self: march
    CPUOpBuilder.simd_width = lambda self: simd


def main() -> int:
    prepare()
    from deepspeed.ops.op_builder.cpu.cpu_adam import CPUAdamBuilder

    CPUAdamBuilder().load(verbose=False)
    print(f"DeepSpeed's CPU Adam is in {os.environ['TORCH_EXTENSIONS_DIR']}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
