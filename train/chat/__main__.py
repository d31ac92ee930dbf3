"""`python -m train.chat --source JSON`: talk to a model that this process loads.

`slipway chat` starts it and hands it the terminal. The exit code is one of `artifacts.contract.EXIT_*`.
"""

from __future__ import annotations

import argparse
import os
import sys

from artifacts.contract import EXIT_DONE, EXIT_USER_ERROR, Source
from train.chat.commands import CommandError
from train.chat.conversation import Conversation
from train.chat.reading import edit_lines, piped_lines, typed_lines
from train.chat.screen import PlainScreen, Screen, TerminalScreen
from train.chat.talk import Speaker, Talk
from train.stage import StageUserError
from train.talk.engine import Engine, PromptError, Sampling
from train.talk.source import open_engine


def main(argv: list[str] | None = None) -> int:
    options = _parse(argv)
    on_terminal = sys.stdin.isatty() and sys.stdout.isatty()
    screen: Screen = TerminalScreen() if on_terminal else PlainScreen()
    _quiet()
    try:
        speakers = [_speaker(source, options, screen) for source in options.source]
        sampling = Sampling(
            max_new_tokens=options.max_new_tokens, temperature=options.temperature, seed=options.seed
        )
        talk = Talk(speakers, sampling, screen, strict=not on_terminal)
        if on_terminal:
            edit_lines()
            screen.note("/help lists the commands")
        talk.run(typed_lines(screen.note) if on_terminal else piped_lines())
    except (StageUserError, CommandError, PromptError) as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_USER_ERROR
    return EXIT_DONE


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m train.chat", description=__doc__)
    parser.add_argument(
        "--source", action="append", type=Source.from_json, required=True, help="JSON; twice: compare"
    )
    parser.add_argument("--system")
    parser.add_argument("--temperature", type=float, default=0.0)
    parser.add_argument("--max-new-tokens", type=int)
    parser.add_argument("--seed", type=int)
    return parser.parse_args(argv)


def _speaker(source: Source, options: argparse.Namespace, screen: Screen) -> Speaker:
    engine = open_engine(source)
    screen.note(header(engine))
    return Speaker(source.name, engine, Conversation(options.system))


def header(engine: Engine) -> str:
    """What is loaded, in a line."""
    source = engine.source
    kind = "GGUF file" if source.gguf else "base with adapter" if source.adapter else "model"
    return f"{source.name}: {kind}, {engine.description}, context of {engine.context_length:,} tokens"


def _quiet() -> None:
    """No progress bars or remarks of libraries between the lines of a conversation."""
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="replace")


if __name__ == "__main__":
    sys.exit(main())
