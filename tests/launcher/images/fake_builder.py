"""A `buildah` on PATH that builds nothing: it notes its command lines, makes the exported files, and tells a
registry what it "pushed"."""

from __future__ import annotations

import json
import sys
from pathlib import Path

#: What the targets that compile leave.
WHEELS = {
    "flash-attention-wheel": ["flash_attn-2.8.3-cp312-cp312-linux_x86_64.whl"],
    "llama-cpp-wheel": [
        "llama_cpp_python-0.3.36-py3-none-linux_x86_64.whl",
        "llama_cpp_converter-0.3.36-py3-none-any.whl",
    ],
}
PROGRAM = """\
#!{python}
import json, os, pathlib, sys
folder = pathlib.Path({folder!r})
words = sys.argv[1:]
context = pathlib.Path(words[-1])
note = {{"words": words}}
if words[0] == "build":
    note["wheels"] = sorted(p.name for p in (context / "images/wheels").glob("[a-z]*.*"))
    for name, value in zip(words, words[1:]):
        if name == "--output":
            out = pathlib.Path(value.partition("dest=")[2])
            out.mkdir(parents=True)
            for wheel in {wheels!r}[words[words.index("--target") + 1]]:
                (out / wheel).write_bytes(b"wheel")
with (folder / "commands.jsonl").open("a") as stream:
    print(json.dumps(note), file=stream)
print("STEP 1/2: FROM base")
print("a warning", file=sys.stderr)
failure = folder / "fail"
if failure.exists() and words[0] == failure.read_text().split("\\n")[0]:
    print(failure.read_text().split("\\n", 1)[1])
    sys.exit(125)
"""


class FakeBuilder:
    """`fail(command, text)` makes `buildah COMMAND` end with that text."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        program = folder / "buildah"
        program.write_text(PROGRAM.format(python=sys.executable, folder=str(folder), wheels=WHEELS))
        program.chmod(0o755)

    def fail(self, command: str, text: str) -> None:
        (self.folder / "fail").write_text(f"{command}\n{text}")

    def commands(self) -> list[dict[str, list[str]]]:
        path = self.folder / "commands.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def targets(self) -> list[str]:
        """Targets built, in order."""
        built = [note["words"] for note in self.commands() if note["words"][0] == "build"]
        return [words[words.index("--target") + 1] for words in built]
