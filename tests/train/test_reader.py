import pickle

import numpy as np
import pytest

from artifacts.local import LocalStore
from artifacts.manifest import ArtifactWriter, verify
from train.data.reader import PreparedSplit
from train.data.shards import Rows, ShardWriter


def _rows(lengths: list[list[int]], first: int = 0) -> Rows:
    """Rows of the given document lengths, whose tokens count up from `first`."""
    tokens = sum(map(sum, lengths))
    input_ids = np.arange(first, first + tokens, dtype=np.int32)
    return Rows(
        input_ids,
        np.where(input_ids % 2 == 0, input_ids, -100).astype(np.int32),
        np.cumsum([0] + [sum(row) for row in lengths]).astype(np.int32),
        np.array([length for row in lengths for length in row], np.int32),
        np.cumsum([0] + [len(row) for row in lengths]).astype(np.int32),
    )


def test_rows_come_back_in_order_across_shards_and_batches(tmp_path):
    store = LocalStore(tmp_path)
    artifact = ArtifactWriter(store, "prepared/key")
    lengths = [[3, 4], [5], [1, 1, 1], [2], [7]]
    with ShardWriter(artifact, "train", shard_tokens=8) as writer:
        writer.write(_rows(lengths[:2]))
        writer.write(_rows(lengths[2:], first=12))
    artifact.commit()

    split = PreparedSplit(tmp_path / "prepared/key", "train")
    assert len(split) == 5
    assert split.lengths.tolist() == [7, 5, 3, 2, 7]
    assert np.concatenate([split[i]["input_ids"] for i in range(5)]).tolist() == list(range(24))
    assert [split[i]["document_lengths"].tolist() for i in range(5)] == lengths
    assert split[1]["labels"].tolist() == [-100, 8, -100, 10, -100]
    assert split[-1]["input_ids"].tolist() == list(range(17, 24))
    assert len(list((tmp_path / "prepared/key").glob("train-*.arrow"))) == 2
    assert verify(store, "prepared/key") == []
    with pytest.raises(IndexError):
        split[5]


def test_an_empty_split_differs_from_a_missing_one(tmp_path):
    with ShardWriter(ArtifactWriter(LocalStore(tmp_path), "prepared/key"), "eval"):
        pass
    assert len(PreparedSplit(tmp_path / "prepared/key", "eval")) == 0
    with pytest.raises(FileNotFoundError, match="train"):
        PreparedSplit(tmp_path / "prepared/key", "train")


def test_a_pickled_split_maps_its_files_again(tmp_path):
    with ShardWriter(ArtifactWriter(LocalStore(tmp_path), "prepared/key"), "train") as writer:
        writer.write(_rows([[3], [2]]))
    split = PreparedSplit(tmp_path / "prepared/key", "train")
    assert pickle.loads(pickle.dumps(split))[1]["input_ids"].tolist() == [3, 4]


def test_a_failed_write_leaves_no_shard(tmp_path):
    artifact = ArtifactWriter(LocalStore(tmp_path), "prepared/key")
    with pytest.raises(RuntimeError), ShardWriter(artifact, "train"):
        raise RuntimeError("worker died")
    assert not list(tmp_path.rglob("*.arrow"))
