"""The commented job that `slipway init` writes."""

from __future__ import annotations

_STARTER = """\
# A fine-tuning job. Check its data: slipway data check train.jsonl
# See what it would do, and why:     slipway plan {name}.yaml
# Try it on this machine, in small:  slipway submit {name}.yaml --rehearse
# Run it:                            slipway submit {name}.yaml
# Lines that are commented out are optional; the plan says what it takes instead. Every field:
# docs/job-reference.md.

name: {name}

model:                          # one of hub, folder, store, twin
  twin: {{}}                      # a tiny random model, to try things out in a minute
  # hub: Qwen/Qwen3-8B          # a model on the Hugging Face hub (HF_ENDPOINT names a mirror) ...
  # revision:                   # ... at a full commit: `slipway pin {name}.yaml` writes it
  # provider: modelscope        # or on ModelScope
  # folder: ../models/qwen3     # or a folder with config.json, tokenizer and safetensors

data:                           # JSON list, JSON lines, CSV or Parquet; paths start at this file
  train: train.jsonl            # {{"messages": [{{"role": ..., "content": ...}}, ...]}} a line, or alpaca
  # eval: eval.jsonl            # for the evaluation loss during training
  # test: test.jsonl            # answered before and after training, and scored
  # on_error: skip              # count bad records instead of stopping

method: lora                    # or full; lora takes more:
# method:
#   type: lora
#   rank: 16
#   alpha: 32                   # left out: 2 x rank
#   target_modules: all-linear  # or a list, as [q_proj, v_proj]

training:
  epochs: 3                     # or steps
  # learning_rate: 2e-4         # left out: 2e-4 for lora, 2e-5 for full
  # global_batch_size: 32       # sequences per optimizer step over all workers, or global_batch_tokens
  # max_length: 2048            # tokens per sequence
  # save_every: epoch           # or a number of steps, or below 1 a share of an epoch

# strategy: auto                # ddp, fsdp, zero2, zero3; {{type: zero3, offload: params}} for host memory
# compute:
#   workers: 2                  # left out: one per GPU
# after: [merge, predict]       # left out: merge, and predict where there is test data
"""


def starter_job(name: str) -> str:
    """The text of a new job file `NAME.yaml`; `name` must match `launcher.spec.job.NAME_PATTERN`."""
    return _STARTER.format(name=name)
