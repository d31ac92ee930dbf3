"""TRL's preprocessing of a data file: tokens, masks, packing. Run by bench/prepare.py.

    python bench/peers/trl_prepare.py FOLDER

FOLDER holds `data/key/train-00000.jsonl` and a model in `models/key`.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from cost import cost

#: ChatML that tells TRL what is learnt.
TEMPLATE = """\
{%- for message in messages %}
{{- '<|im_start|>' + message['role'] + '\\n' }}
{%- if message['role'] == 'assistant' %}
{%- generation %}{{- message['content'] + '<|im_end|>' }}{% endgeneration %}
{%- else %}{{- message['content'] + '<|im_end|>' }}{% endif %}
{{- '\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}
"""


def main(folder: Path) -> None:
    os.environ["HF_DATASETS_CACHE"] = str(folder / "trl")
    from datasets import load_dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    tokenizer = AutoTokenizer.from_pretrained(folder / "models/key")
    tokenizer.chat_template = TEMPLATE
    model = AutoModelForCausalLM.from_pretrained(folder / "models/key")
    config = SFTConfig(
        output_dir=str(folder / "trl-out"),
        max_length=2048,
        packing=True,
        assistant_only_loss=True,
        use_cpu=True,
        bf16=False,
        report_to="none",
    )

    def prepare() -> None:
        data = load_dataset("json", data_files=str(folder / "data/key/train-00000.jsonl"), split="train")
        SFTTrainer(model, config, train_dataset=data, processing_class=tokenizer)

    print(json.dumps(cost(prepare)))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
