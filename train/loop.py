"""The training function of every rank. READ FIRST in `train`: model, data, trainer, final artifact.

It knows neither Ray nor Kubernetes: whoever starts the ranks (`train.entrypoint`) gives each one a
`TrainTask` and the usual environment (RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, MASTER_PORT).
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
import torch.distributed as dist

from artifacts.contract import TrainParams
from artifacts.events import Events
from artifacts.store import Store
from train import attention, lean_peft, methods, optimizers, schedule, strategies
from train.processes import available_cores
from train.stage import StageUserError

_SEED_STRIDE = 1_000  # more than ranks, so that those of other steps draw other numbers


class Checkpointer(Protocol):
    def save(self, trainer: Any, step: int) -> None:
        """Save a checkpoint of `trainer` (a `train.trainer.RankTrainer`, whose `write_checkpoint(folder)`
        writes the files) after `step`. Called on every rank, at the same step."""
        ...

    def folder_of(self, step: int) -> Path:
        """Where the checkpoint that was saved after `step` lies, on each rank. Every rank calls."""
        ...


@dataclass(kw_only=True)
class TrainTask:
    """What one rank is to do. The same on all ranks, but for rank and local_rank and what the hooks do."""

    params: TrainParams
    model: Path  # folder of the base model, with its tokenizer
    prepared: Path  # folder of the prepared splits
    store: Store
    prefix: str  # `train/<key>`
    run_id: str
    work: Path  # scratch folder on this machine
    attempt: int = 1  # counts this training's starts, from 1
    base_name: str = ""  # how adapter_config.json names the base model: a hub id or an artifact prefix
    base_revision: str | None = None  # the full commit, where the base came from a hub
    trust_remote_code: bool = False
    resume_from: Path | None = None  # folder of the checkpoint to go on from
    checkpointer: Checkpointer | None = None
    events: Events | None = None  # rank 0's
    #: Asked before each step on each rank; where any rank says yes, all save after that step and stop.
    should_stop: Callable[[], bool] = lambda: False
    on_step: Callable[[int], None] = lambda step: None  # heartbeat, after each step
    rank: int = field(default_factory=lambda: int(os.environ.get("RANK", "0")))
    local_rank: int = field(default_factory=lambda: int(os.environ.get("LOCAL_RANK", "0")))
    world_size: int = field(default_factory=lambda: int(os.environ.get("WORLD_SIZE", "1")))


@dataclass(frozen=True)
class Outcome:
    """How a rank's training ended: all steps done and `final/` committed, or stopped on request after
    saving."""

    ending: Literal["done", "drained"]
    step: int


def train_rank(task: TrainTask) -> Outcome:
    """Train to the end, or until asked to stop. Raises StageError or StageUserError; the same on every
    rank."""
    lean_peft.prepare(task.params.quantization)
    from transformers import set_seed
    from transformers.utils.logging import disable_progress_bar

    from train.data.collate import Collator
    from train.data.reader import PreparedSplit
    from train.trainer import RankTrainer

    params = task.params
    if task.world_size != params.world_size:
        raise ValueError(f"{task.world_size} ranks were started, the plan says {params.world_size}")
    disable_progress_bar()
    warnings.filterwarnings("ignore", category=FutureWarning)  # of our libraries about each other
    on_gpu = torch.cuda.is_available()
    use_cores(task.world_size)
    strategies.start_process_group(task.world_size, on_gpu=on_gpu, strategy=params.strategy)
    if params.strategy in strategies.DEEPSPEED_STAGES:
        strategies.start_deepspeed()

    train_split = PreparedSplit(task.prepared, "train")
    eval_split = PreparedSplit(task.prepared, "eval") if has_split(task.prepared, "eval") else None
    if (params.best_model or params.early_stopping) and not eval_split:
        raise StageUserError(
            "there are no evaluation records to tell the best model by",
            "give data.eval, or leave out training.best_model and early_stopping",
        )
    plan = schedule.resolve(params, len(train_split))
    # Before the model is loaded: DeepSpeed partitions it while loading, if it knows by then.
    arguments = training_arguments(task, plan, on_gpu=on_gpu)
    set_seed(params.seed)
    if params.strategy == "single":
        arguments._n_gpu = min(arguments.n_gpu, 1)  # transformers would use all that it sees
    base = load_model(task, attention.choose(params, on_gpu=on_gpu))
    if strategies.leaves_weights_out(base.config):
        arguments.ddp_find_unused_parameters = True
    model = methods.apply(base, params, methods.tokens.read(task.prepared, params))
    trainer = RankTrainer(
        task=task,
        model=model,
        arguments=arguments,
        schedule=plan,
        collator=Collator(flatten=attention.may_flatten(base, trust_remote_code=task.trust_remote_code)),
        train_split=train_split,
        eval_split=eval_split or None,  # one without rows is none
    )
    trainer.progress.say(f"attention: {attention.used_by(base)}", attention=attention.used_by(base))
    # Dropout differs by rank. A checkpoint of as many ranks brings its own state.
    set_seed((params.seed + 1 + task.rank + _SEED_STRIDE * resumed_step(task)) % 2**32)
    trainer.train(resume_from_checkpoint=str(task.resume_from) if task.resume_from else None)
    if not trainer.stopped:
        trainer.write_final()
    trainer.progress.close()
    return Outcome("drained" if trainer.stopped else "done", trainer.state.global_step)


def resumed_step(task: TrainTask) -> int:
    if task.resume_from is None:
        return 0
    state = json.loads((task.resume_from / "trainer_state.json").read_text(encoding="utf-8"))
    return int(state["global_step"])


def use_cores(world_size: int) -> None:
    """Share this machine's cores among its ranks. Set here, as each launcher would otherwise decide for
    itself and the order of floating-point sums with it."""
    local = strategies.ranks_per_node(world_size)
    torch.set_num_threads(max(1, available_cores() // max(1, local)))


def has_split(prepared: Path, split: str) -> bool:
    return any(prepared.glob(f"{split}-*.arrow"))


def may_use_tf32(params: TrainParams, *, on_gpu: bool) -> bool:
    """Float32 products on tensor cores with 10 bits of mantissa, unless float32 is what the job asked for."""
    return on_gpu and params.precision != "fp32" and torch.cuda.get_device_capability() >= (8, 0)


def load_model(task: TrainTask, kernel: str | None) -> Any:
    """The base model, with that attention kernel. An architecture that has no such kernel is loaded with its
    own choice, unless the job names one: StageUserError then."""
    from transformers import AutoModelForCausalLM

    def load(implementation: str | None) -> Any:
        return AutoModelForCausalLM.from_pretrained(
            task.model,
            dtype=methods.weights_dtype(task.params),
            attn_implementation=implementation,
            quantization_config=methods.quantization_config(task.params, task.model),
            trust_remote_code=task.trust_remote_code,
            local_files_only=True,
        )

    try:
        return load(kernel)
    except (ValueError, ImportError) as error:  # before any weight is read
        if kernel is None:
            raise
        if task.params.attention != "auto":
            raise StageUserError(
                f"the model can't use {kernel}: {str(error).splitlines()[0]}",
                "set training.attention to auto, or eager",
            ) from error
        return load(None)


def training_arguments(task: TrainTask, plan: schedule.Schedule, *, on_gpu: bool) -> Any:
    from transformers import TrainingArguments

    params = task.params
    return TrainingArguments(
        output_dir=str(task.work),
        max_steps=plan.max_steps,
        per_device_train_batch_size=params.micro_batch_size,
        per_device_eval_batch_size=params.micro_batch_size,
        gradient_accumulation_steps=params.gradient_accumulation_steps,
        learning_rate=params.learning_rate,
        lr_scheduler_type=schedule.SCHEDULERS[params.schedule],
        warmup_steps=plan.warmup_steps,
        weight_decay=params.weight_decay,
        max_grad_norm=params.max_grad_norm,
        optim=optimizers.NAMES[params.optimizer],
        seed=params.seed,
        bf16=params.precision == "bf16",
        fp16=params.precision == "fp16",
        tf32=True if may_use_tf32(params, on_gpu=on_gpu) else None,
        activation_checkpointing=params.gradient_checkpointing,
        activation_checkpointing_kwargs={"use_reentrant": params.strategy == "zero3"},
        logging_steps=params.log_every_steps,
        logging_first_step=True,
        logging_nan_inf_filter=False,
        save_strategy="no",  # train.trainer decides when to save and evaluate
        eval_strategy="no",
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        use_cpu=not on_gpu,
        ddp_backend="gloo" if dist.is_initialized() and not on_gpu else None,
        log_level="error",
        **strategies.training_options(params, on_gpu=on_gpu),
    )
