"""Datasets of Hugging Face through its own library: a folder that load_dataset takes, streamed and not, and saved ones."""

import json
import pickle
import re
from pathlib import Path

import pytest
from datasets import Dataset, DatasetDict, load_dataset

from data.sources import BadRecord
from tests.data.source_files import as_jsonl, planned, read, read_parts, write

TEXTS = [f"text {number} of a data set" for number in range(600)]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr("datasets.config.HF_DATASETS_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three files of training texts, one of test texts."""
    for number in range(3):
        write(tmp_path / f"repository/train-{number}.jsonl", as_jsonl(TEXTS[200 * number : 200 * (number + 1)]))
    write(tmp_path / "repository/test.jsonl", as_jsonl(["held out"]))
    return tmp_path / "repository"


@pytest.mark.parametrize("streaming", [False, True])
def test_a_dataset_in_parts(folder: Path, streaming: bool) -> None:
    for part_bytes in (1 << 20, 1000):
        items = planned([f"hf:{folder}"], part_bytes, streaming=streaming)
        parts = read_parts(pickle.loads(pickle.dumps(items)))
        assert [text for part in parts for text in part] == TEXTS
        assert len(parts) == ((3 if streaming else 1) if part_bytes > 1000 else len(parts))
        assert len({item.identity for item in items}) == len(items)
        assert [item.identity for item in items] == [
            item.identity for item in planned([f"hf:{folder}"], part_bytes, streaming=streaming)
        ]
    assert len(parts) > 6
    assert max(sum(len(str(text)) for text in part) for part in parts) < 3_000
    assert read([f"hf:{folder}::test", f"hf:{folder}:default:test"], streaming=streaming) == ["held out"] * 2


def test_a_slice_of_a_split(folder: Path) -> None:
    assert read([f"hf:{folder}::train[3:5]"]) == TEXTS[3:5]


def test_another_content_has_another_identity(folder: Path) -> None:
    for streaming in (False, True):
        before = [item.identity for item in planned([f"hf:{folder}"], streaming=streaming)]
        write(folder / "train-1.jsonl", as_jsonl(["other", "texts", str(streaming)]))
        assert before != [item.identity for item in planned([f"hf:{folder}"], streaming=streaming)]


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize(
    ("given", "message"),
    [
        (":default:valid", r"valid.*\['train', 'test'\]"),
        (":french", r"french.*\['default'\]"),
        ("/absent", "absent.*cannot be found or reached"),
    ],
)
def test_what_is_not_there_is_listed(folder: Path, given: str, message: str, streaming: bool) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=message) as caught:
        planned([f"hf:{folder}{given}"], streaming=streaming)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600


def test_the_hub_out_of_reach() -> None:
    for streaming in (False, True):
        with pytest.raises(FileNotFoundError, match=r"'hf:nobody/nothing' cannot be found or reached"):
            planned(["hf:nobody/nothing"], streaming=streaming)


@pytest.mark.parametrize("streaming", [False, True])
def test_a_missing_column_is_listed(folder: Path, streaming: bool) -> None:
    with pytest.raises(ValueError, match=r"no column 'body' \(found: id, text\).*--text_field"):
        read([f"hf:{folder}"], text_field="body", streaming=streaming)
    with pytest.raises(ValueError, match="column 'id' is int64, not text"):
        read([f"hf:{folder}"], text_field="id", streaming=streaming)


@pytest.mark.parametrize("streaming", [False, True])
def test_broken_records(folder: Path, streaming: bool) -> None:
    write(folder / "test.jsonl", "".join(json.dumps({"text": text}) + "\n" for text in [*TEXTS, None, " ", "b"]))
    *texts, null, empty, last = read([f"hf:{folder}::test"], streaming=streaming)
    assert [*texts, last] == [*TEXTS, "b"]
    assert isinstance(null, BadRecord)
    assert isinstance(empty, BadRecord)
    assert (null.line, null.reason, empty.line, empty.reason) == (601, "not_text", 602, "empty")
    write(folder / "test.jsonl", '{"text": "a"}\n{"text": "b')
    with pytest.raises(ValueError, match=f"'hf:{re.escape(str(folder))}::test.*' cannot be read: ") as caught:
        read([f"hf:{folder}::test"], streaming=streaming)
    assert "\n" not in str(caught.value)


def test_saved_datasets(tmp_path: Path) -> None:
    dataset = Dataset.from_dict({"id": range(600), "text": TEXTS})
    dataset.save_to_disk(tmp_path / "one", num_shards=3)
    parts = read_parts(pickle.loads(pickle.dumps(planned([tmp_path / "one"], part_bytes=1000))))
    assert [text for part in parts for text in part] == TEXTS
    assert len(parts) > 10
    with pytest.raises(ValueError, match="one dataset without splits"):
        planned([f"{tmp_path}/one:train"])

    chosen = dataset.shuffle(seed=1).select(range(50))  # rows that are reached through indices
    DatasetDict(train=dataset, small=chosen).save_to_disk(tmp_path / "two")
    assert read([tmp_path / "two", f"{tmp_path}/two:small"], part_bytes=300) == [*TEXTS, *chosen["text"]]
    with pytest.raises(ValueError, match=r"no split 'valid' \(found: train, small\)"):
        planned([f"{tmp_path}/two:valid"])
    DatasetDict(small=chosen).save_to_disk(tmp_path / "three")
    assert read([tmp_path / "three"]) == list(chosen["text"])


def test_a_damaged_saved_dataset_is_named(tmp_path: Path) -> None:
    Dataset.from_dict({"text": TEXTS}).save_to_disk(tmp_path / "one")
    (tmp_path / "one/data-00000-of-00001.arrow").write_bytes(b"nothing of the kind")
    with pytest.raises(ValueError, match=f"'{re.escape(str(tmp_path))}/one' cannot be read"):
        planned([tmp_path / "one"])


def test_a_name_is_needed() -> None:
    with pytest.raises(ValueError, match="'hf::x' names no dataset"):
        planned(["hf::x"])


def test_the_cache_of_a_dataset_is_a_folder_of_tables(folder: Path, tmp_path: Path) -> None:
    """Arrow files as the library leaves them are inputs like any other."""
    load_dataset(str(folder), split="train")
    (stored,) = tmp_path.glob("cache/**/*-train.arrow")
    assert read([stored], part_bytes=5_000) == TEXTS
