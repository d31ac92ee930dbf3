from __future__ import annotations

import json

import pytest

from launcher.publishing import privacy


@pytest.mark.parametrize(
    "text",
    [
        "/home/ada/x",
        "~/x",
        "../x",
        "./x",
        "C:\\Users\\ada",
        "s3://bucket/x",
        "http://host:1/",
        "ada@host",
        "\\\\h",
    ],
)
def test_what_names_a_place_is_private(text: str) -> None:
    assert privacy.is_private(text)


@pytest.mark.parametrize("text", ["all-linear", "cosine", r".*\.(q|v)_proj", "2e-4", "org/name", "", "a @ b"])
def test_settings_are_not(text: str) -> None:
    assert not privacy.is_private(text)


@pytest.mark.parametrize(
    ("path", "name"),
    [("/a/b.jsonl", "b.jsonl"), ("s3://x/y/z.jsonl", "z.jsonl"), ("C:\\a\\b.csv", "b.csv"), ("/a/b/", "b")],
)
def test_file_names(path: str, name: str) -> None:
    assert privacy.file_name(path) == name


def test_configurations_keep_all_but_paths() -> None:
    plain = json.dumps({"model_type": "qwen3", "_name_or_path": "Qwen/Qwen3-8B"}).encode()
    assert privacy.public_config(plain, base_name=None) is plain
    assert privacy.public_config(b"not json", base_name=None) == b"not json"
    assert privacy.public_config(b'["/a"]', base_name=None) == b'["/a"]'
    left = {"_name_or_path": "/home/ada/m", "tokenizer_file": "C:\\m\\t.json", "é": "/kept", "n": 1}
    public = privacy.public_config(json.dumps(left).encode(), base_name="org/base")
    assert json.loads(public) == {"é": "/kept", "n": 1}


@pytest.mark.parametrize("base", ["org/base", None])
def test_an_adapter_names_its_base_as_others_find_it(base: str | None) -> None:
    config = json.dumps({"base_model_name_or_path": "models/0123", "r": 8}).encode()
    assert json.loads(privacy.public_config(config, base_name=base)) == {
        "base_model_name_or_path": base,
        "r": 8,
    }


def test_of_a_job_only_how_the_model_was_made() -> None:
    job = {
        "name": "bot",
        "model": {"folder": "/home/ada/m", "hub": None},
        "data": {"train": "/home/ada/t.jsonl"},
        "compute": {"accelerator": "H100"},
        "publish": {"to": "s3://bucket/x"},
        "template": {"name": "chatml", "default_system": "You are Ada's."},
        "method": {"type": "lora", "modules": ["q", "/home/ada"], "path": "~/x", "unset": None},
        "training": {"epochs": 3, "deep": {"/home/ada/key": 1, "seed": 0}},
    }
    assert privacy.public_job(job) == {
        "template": {"name": "chatml"},
        "method": {"type": "lora", "modules": ["q"]},
        "training": {"epochs": 3, "deep": {"seed": 0}},
    }
    hub = privacy.public_job({"model": {"hub": "org/base", "revision": "c" * 40, "folder": "/x"}})
    assert hub == {"model": {"hub": "org/base", "revision": "c" * 40}}
