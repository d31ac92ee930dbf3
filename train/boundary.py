"""What happens between two optimizer steps: the epoch's order, evaluating and saving on time, stopping."""

from __future__ import annotations

import math
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from train import strategies
from train.metrics import Meter


class StepBoundary(TrainerCallback):
    """Every rank's copy decides alike: by the step, by the votes that all ranks know of, and by the
    evaluation loss, which is one number for all.

    The lowest evaluation loss and its step are kept in the trainer's state, and so in each checkpoint. How
    many evaluations have passed since follows from the schedule.
    """

    def __init__(self, trainer: Any) -> None:
        self.trainer = trainer

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        self.trainer.meter = Meter()
        if self.trainer.task.params.strategy == "fsdp":
            strategies.check_sharded(self.trainer.model_wrapped, self.trainer.shard_size)

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        self.trainer.train_batches.epoch = state.global_step // self.trainer.schedule.steps_per_epoch

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        trainer, step = self.trainer, state.global_step
        trainer.task.on_step(step)
        control.should_log |= step == trainer.schedule.max_steps
        control.should_evaluate = trainer.eval_dataset is not None and trainer.schedule.evaluates(step)
        control.should_save = trainer.schedule.saves(step)
        if trainer.stop_votes and step < trainer.schedule.max_steps:
            control.should_log = control.should_save = control.should_training_stop = True
            trainer.stopped = True

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, float],
        **_: Any,
    ) -> None:
        """A new best is saved where it may be wanted at the end. Without any for long enough the training is
        over, and is not saved: continued, it would go on past its end."""
        trainer, step, eval_loss = self.trainer, state.global_step, metrics["eval_loss"]
        params = trainer.task.params
        if math.isfinite(eval_loss) and (state.best_metric is None or eval_loss < state.best_metric):
            state.best_metric, state.best_global_step = eval_loss, step
            control.should_save |= params.best_model and step < trainer.schedule.max_steps
            return
        fruitless = trainer.schedule.evaluations(state.best_global_step or 0, step)
        if params.early_stopping is not None and fruitless >= params.early_stopping:
            control.should_training_stop, control.should_save = True, False
            trainer.stopped = False
            trainer.progress.say(
                f"stopped early at step {step}: no lower evaluation loss than "
                f"{state.best_metric:.4g} of step {state.best_global_step} in {fruitless} evaluations"
            )
