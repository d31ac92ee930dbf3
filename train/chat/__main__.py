"""`python -m train.chat --source JSON`: talk to a model that this process loads.

`slipway chat` starts it and hands it the terminal. The exit code is one of `artifacts.contract.EXIT_*`, or
130 after ^C.
"""

from __future__ import annotations

import argparse
import os
import sys

from artifacts.contract import EXIT_DONE, EXIT_FAILED, EXIT_USER_ERROR, Source
from train.chat.commands import CommandError
from train.chat.conversation import Conversation
from train.chat.hush import hushed
from train.chat.reading import edit_lines, piped_lines, typed_lines
from train.chat.screen import PlainScreen, Screen, TerminalScreen
from train.chat.talk import Speaker, Talk
from train.stage import StageUserError
from train.talk.engine import Engine, PromptError, Sampling
from train.talk.source import open_engine

EXIT_INTERRUPTED = 130  # as shells say it of ^C


def main(argv: list[str] | None = None) -> int:
    options = _parse(argv)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="replace")
    try:
        _talk(options)
    except (StageUserError, CommandError, PromptError) as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_USER_ERROR
    except KeyboardInterrupt:  # while the model is loaded, or of an answer into a pipe
        print(file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:  # a reader as `head` that has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the flush at the end
        return EXIT_FAILED
    return EXIT_DONE


def _talk(options: argparse.Namespace) -> None:
    """Raises StageUserError for a model that can't be loaded; through a pipe also what `Talk.run` raises."""
    on_terminal = sys.stdin.isatty() and sys.stdout.isatty()
    screen: Screen = TerminalScreen() if on_terminal else PlainScreen()
    speakers = [_speaker(source, options, screen) for source in options.source]
    sampling = Sampling(
        max_new_tokens=options.max_new_tokens, temperature=options.temperature, seed=options.seed
    )
    talk = Talk(speakers, sampling, screen, strict=not on_terminal)
    if on_terminal:
        edit_lines()
        screen.note("/help lists the commands")
    talk.run(typed_lines(screen.note) if on_terminal else piped_lines())


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
    screen.note(f"loading {source.name} ...")
    with hushed():
        engine = open_engine(source)
    screen.note(header(engine))
    return Speaker(source.name, engine, Conversation(options.system))


def header(engine: Engine) -> str:
    """What is loaded, in a line."""
    source = engine.source
    return f"{source.name}: {source.form}, {engine.description}, context of {engine.context_length:,} tokens"


if __name__ == "__main__":
    sys.exit(main())
