"""Stage `gguf`: a model folder -> GGUF files for llama.cpp and Ollama, each loaded again and compared.

Converting and quantizing is llama.cpp's own code, each step in a process of its own that holds a few tensors
at a time. Nothing is committed unless llama.cpp reads texts as the tokens that training used, and the 16-bit
file, which the smaller ones are made of, answers as transformers does with the input.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from artifacts.contract import GgufParams, GgufType
from artifacts.manifest import ArtifactWriter
from train.answering import ModelSource
from train.asking import available_memory_bytes, gpu_count, gpu_memory_bytes
from train.child import in_child
from train.data.loading import TOKENIZER_FILES, read_json
from train.gguf_files import answers, convert, quantization, source, tokens
from train.gguf_files.answers import Comparison
from train.gguf_files.family import check_model
from train.gguf_files.modelfile import Model, modelfile
from train.processes import available_cores
from train.stage import StageContext

SIXTEEN_BITS: GgufType = "f16"
#: Bytes a file takes of those of the 16-bit one, about; for the progress that is shown alone.
_SHARES: dict[GgufType, float] = {"f16": 1.0, "q8_0": 0.53, "q4_k_m": 0.31}
#: What readers of the tokens need beside the tokenizer's own files.
_BESIDE_TOKENIZER = ("chat_template.jinja", "config.json", "generation_config.json")


def run(context: StageContext) -> None:
    """Write `gguf/<key>/`. Raises StageUserError for a model that can't be converted, StageError where a
    check fails."""
    params: GgufParams = context.stage.params
    folder = context.input_folder("model")
    check_model(read_json(folder / "config.json"))
    os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"  # forked processes can't use a CUDA context made here
    import transformers.generation  # noqa: F401 - imported once, before the processes are forked

    made = Made(context, folder, params)
    made.convert()
    made.check_tokens()
    made.answer()
    for kind in params.types:
        made.make(kind)
    made.commit()


class Made:
    """The files as they come to be, in the stage's scratch folder."""

    def __init__(self, context: StageContext, folder: Path, params: GgufParams) -> None:
        self.context, self.folder, self.params = context, folder, params
        self.converter, self.model = convert.converter_folder(), Model.read(folder)
        self.work = context.work / "gguf"
        shutil.rmtree(self.work, ignore_errors=True)
        self.work.mkdir(parents=True)
        self.size_bytes = input_bytes(folder)
        # Asked before anything is read: what the page cache takes of a container's memory looks taken.
        self.device, self.precision = answers.place(
            self.size_bytes,
            gpu_bytes=gpu_memory_bytes() if gpu_count() else 0,
            memory_bytes=available_memory_bytes(),
        )
        self.report: dict[str, dict[str, Any]] = {}
        self.texts = 0

    def file(self, kind: GgufType) -> Path:
        return self.work / f"{self.params.name}-{kind}.gguf"

    def convert(self) -> None:
        links = self.work / "source"
        declared = source.prepare(self.folder, self.model.tokenizer.backend, links)
        output = self.file(SIXTEEN_BITS)
        tick = self._progress(output, self.size_bytes)
        arguments = (self.converter, links, output, declared, self.params.name)
        in_child("converting", convert.convert, *arguments, tick=tick)
        shutil.rmtree(links)

    def check_tokens(self) -> None:
        arguments = (self.file(SIXTEEN_BITS), self.model.tokenizer)
        self.texts = in_child("comparing tokens", tokens.compare, *arguments)

    def answer(self) -> None:
        """Answers of transformers, and of the 16-bit file beside them."""
        arguments = (self.folder, self.model.tokenizer, self.device, self.precision)
        self.expected = in_child("answering with transformers", answers.reference, *arguments)
        answers.check_16_bits(self._compare(SIXTEEN_BITS), self.precision)

    def make(self, kind: GgufType) -> None:
        if kind == SIXTEEN_BITS:
            return
        whole, output = self.file(SIXTEEN_BITS), self.file(kind)
        tick = self._progress(output, int(whole.stat().st_size * _SHARES[kind]))
        arguments = (self.converter, whole, output, kind)
        types = in_child(f"quantizing to {kind}", quantization.quantize, *arguments, tick=tick)
        self.report[kind] = quantization.told(kind, types)
        self._compare(kind)

    def commit(self) -> None:
        """The files, then what is told of them, then the marker."""
        names = {kind: self.file(kind).name for kind in self.params.types}
        sizes = {self.file(kind).name: self.file(kind).stat().st_size for kind in self.params.types}
        adds_bos = in_child("reading the file", quantization.adds_bos, self.file(SIXTEEN_BITS))
        text = modelfile(names, self.model, system=self.params.system, adds_bos=adds_bos)
        writer = ArtifactWriter(self.context.store, self.context.stage.output)
        for kind in self.params.types:
            writer.add_file(names[kind], self.file(kind), move=True)
        for path in tokenizer_files(self.folder):
            writer.add_file(f"tokenizer/{path.name}", path)
        writer.write_bytes("Modelfile", text.encode())
        told = {
            "same_tokens": {"texts": self.texts},
            "reference": {"library": "transformers", "precision": self.precision},
            "types": self.report,  # the 16-bit file's too where it was not asked for
        }
        writer.write_bytes("gguf.json", (json.dumps(told, indent=2) + "\n").encode())
        same = {kind: report["same_answers"] for kind, report in self.report.items()}
        writer.commit(files=sizes, same_tokens=True, same_answers=same)
        shutil.rmtree(self.work)

    def _compare(self, kind: GgufType) -> Comparison:
        found = in_child(
            f"answering with the {kind} file",
            answers.compare,
            self.file(kind),
            self.expected,
            available_cores(),
        )
        self.report.setdefault(kind, {}).update(same_answers=found.share, **dataclasses.asdict(found))
        return found

    def _progress(self, output: Path, size_bytes: int) -> Callable[[], None]:
        def tell() -> None:
            done = output.stat().st_size if output.exists() else 0
            self.context.events.progress(min(done, size_bytes), size_bytes, "bytes")

        return tell


def input_bytes(folder: Path) -> int:
    """Of the model in 16 bits."""
    source = ModelSource("merged", folder)
    return source.size_bytes * 2 // source.weight_bytes


def tokenizer_files(folder: Path) -> list[Path]:
    """What loads as the model's tokenizer and chat template."""
    patterns = (*TOKENIZER_FILES, *_BESIDE_TOKENIZER)
    return sorted({path for pattern in patterns for path in folder.glob(pattern) if path.is_file()})
