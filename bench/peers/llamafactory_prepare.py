"""LLaMA-Factory's preprocessing of a data file: tokens, masks, packing. Run by bench/prepare.py.

    python bench/peers/llamafactory_prepare.py FOLDER

FOLDER holds `data/key/train-00000.jsonl` and the tokenizer in `models/key`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from cost import cost


def main(folder: Path) -> None:
    from llamafactory.data import get_dataset, get_template_and_fix_tokenizer
    from llamafactory.hparams import get_train_args
    from transformers import AutoTokenizer

    work = folder / "llamafactory"
    work.mkdir(exist_ok=True)
    about = {
        "file_name": str(folder / "data/key/train-00000.jsonl"),
        "formatting": "sharegpt",
        "columns": {"messages": "messages"},
        "tags": {
            "role_tag": "role",
            "content_tag": "content",
            "user_tag": "user",
            "assistant_tag": "assistant",
        },
    }
    (work / "dataset_info.json").write_text(json.dumps({"bench": about}))
    arguments = {
        "model_name_or_path": str(folder / "models/key"),
        "stage": "sft",
        "do_train": True,
        "dataset": "bench",
        "dataset_dir": str(work),
        "template": "chatml",
        "cutoff_len": 2048,
        "packing": True,
        "neat_packing": True,
        "overwrite_cache": True,
        "output_dir": str(work / "out"),
        "report_to": "none",
        "use_cpu": True,
    }
    model_args, data_args, training_args, _, _ = get_train_args(arguments)
    tokenizer = AutoTokenizer.from_pretrained(folder / "models/key")
    template = get_template_and_fix_tokenizer(tokenizer, data_args)
    print(
        json.dumps(
            cost(
                lambda: get_dataset(
                    template, model_args, data_args, training_args, stage="sft", tokenizer=tokenizer
                )
            )
        )
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
