"""Processes of `train` that load a model and talk: they have the terminal, the launcher waits."""

from __future__ import annotations

import importlib.util
import signal
import subprocess
import sys
from collections.abc import Sequence

from artifacts.contract import Source
from launcher.backends.processes import environment
from launcher.errors import ClusterError, Problem, UserError


def run(module: str, sources: Sequence[Source], options: Sequence[str]) -> int:
    """Run `python -m module --source JSON … options`; returns its exit code. ^C is the process's business.
    Raises UserError where this environment can't load such models, ClusterError for a process that was
    killed."""
    for source in sources:
        require_libraries(source)
    command = [sys.executable, "-P", "-m", module]
    command += [f"--source={source.to_json()}" for source in sources]
    # A handler, not SIG_IGN: the process would inherit that.
    before = signal.signal(signal.SIGINT, lambda *_: None)
    try:
        code = subprocess.run([*command, *options], env=environment(), check=False).returncode
    finally:
        signal.signal(signal.SIGINT, before)
    if code < 0:
        raise killed(-code)
    return code


def killed(number: int) -> ClusterError:
    """What is said of a process that the signal ended."""
    name = signal.Signals(number).name
    why = f"{name} killed the process that held it"
    if number == signal.SIGKILL:
        way_out = "if this machine ran out of memory, take a smaller form: --product quantized or gguf"
    else:
        way_out = "SLIPWAY_DEBUG=1 shows what the libraries said"
    return ClusterError("the model", why, way_out)


def require_libraries(source: Source) -> None:
    """Raises UserError where the libraries that answer from it are missing: launchers need none of them."""
    module, name, way_out = (
        ("llama_cpp", "llama-cpp-python", "`make gguf` compiles it")
        if source.gguf is not None
        else ("transformers", "the training stack", "`make setup` installs it")
    )
    if importlib.util.find_spec(module) is None:
        why = f"{name} is not in {sys.prefix}"
        raise UserError(Problem(where="", what=source.name, why=why, way_out=way_out))
