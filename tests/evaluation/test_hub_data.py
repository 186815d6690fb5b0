"""The hub's route through `datasets` itself, on folders in the form of the hub's repositories."""

from pathlib import Path
from typing import Any

import pytest
from datasets import ClassLabel, Dataset, Features, Sequence, Value

from evaluation.examples import Answer
from evaluation.task_data import read_split
from evaluation.tasks import SQUAD, TASKS, Kind, Task
from tests.evaluation.task_files import ONE, TWO, write


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr("datasets.config.HF_DATASETS_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


def features_of(task: Task, labels: tuple[str, ...] | None = None) -> Features:
    """As the hub's repository of the task has them."""
    label: Any = Value("float32") if task.kind is Kind.REGRESSION else ClassLabel(names=list(labels or task.labels))
    if task is SQUAD:
        answers = {"text": Sequence(Value("string")), "answer_start": Sequence(Value("int32"))}
        names = ("id", "title", "context", "question")
        return Features({**{name: Value("string") for name in names}, "answers": answers})
    return Features({**{name: Value("string") for name in task.text_columns}, "label": label})


def repository(folder: Path, task: Task, rows: list[dict[str, Any]], features: Features) -> str:
    """One Parquet file for each split, and the README that names them; returns it as a source."""
    config = task.hub[1] or "plain_text"
    lines = ["---", "configs:", f"- config_name: {config}", "  data_files:"]
    for split in task.splits:
        (folder / config).mkdir(parents=True, exist_ok=True)
        Dataset.from_list(rows, features=features).to_parquet(folder / config / f"{split}-00000-of-00001.parquet")
        lines += [f"  - split: {split}", f"    path: {config}/{split}-*"]
    write(folder / "README.md", "\n".join([*lines, "---", ""]))
    return f"hf:{folder}"


@pytest.mark.parametrize("task", [task for task in TASKS.values() if task is not SQUAD], ids=lambda task: task.name)
def test_texts_and_labels_of_every_split(tmp_path: Path, task: Task) -> None:
    labels = [4.75, 0.0] if task.kind is Kind.REGRESSION else [len(task.labels) - 1, 0]
    texts = [(ONE, TWO)[: len(task.text_columns)], (TWO, "")[: len(task.text_columns)]]
    rows = [
        {**dict(zip(task.text_columns, pair, strict=True)), "label": label}
        for pair, label in zip(texts, labels, strict=True)
    ]
    source = repository(tmp_path / "repository", task, rows, features_of(task))
    for split in task.splits:
        found = read_split(task, split, source)
        assert [(example.id, example.texts, example.label) for example in found.examples] == [
            (str(number), texts[number], labels[number]) for number in range(2)
        ]
        assert found.files == found.skipped == ()


def test_squad(tmp_path: Path) -> None:
    row = {"id": "q1", "title": "T", "context": "Caf\u00e9 \U0001f600 in Paris, Paris", "question": "Where?"}
    answers = {"text": ["Paris", "Paris"], "answer_start": [10, 17]}
    source = repository(tmp_path / "squad", SQUAD, [{**row, "answers": answers}], features_of(SQUAD))
    [example] = read_split(SQUAD, "validation", source).examples
    assert (example.id, example.texts) == ("q1", ("Where?", row["context"]))
    assert example.label == (Answer("Paris", 10), Answer("Paris", 17))
    none = {**row, "answers": {"text": [], "answer_start": []}}
    source = repository(tmp_path / "squad2", SQUAD, [{**row, "answers": answers}, none], features_of(SQUAD))
    with pytest.raises(ValueError, match=r"split 'train', row 2: no answer.*SQuAD 2\.0"):
        read_split(SQUAD, "train", source)


def test_another_tasks_data(tmp_path: Path) -> None:
    rte, sst2, stsb = TASKS["rte"], TASKS["sst2"], TASKS["stsb"]
    pair = {"sentence1": ONE, "sentence2": TWO}
    swapped = repository(tmp_path / "a", rte, [{**pair, "label": 0}], features_of(rte, rte.labels[::-1]))
    with pytest.raises(
        ValueError, match=r"column 'label': the classes are not_entailment, entailment\. RTE's are entail"
    ):
        read_split(rte, "train", swapped)
    unlabelled = repository(tmp_path / "b", rte, [{**pair, "label": 1}, {**pair, "label": -1}], features_of(rte))
    with pytest.raises(ValueError, match=r"split 'validation', row 2, column 'label': -1 is no label of RTE"):
        read_split(rte, "validation", unlabelled)
    other = repository(tmp_path / "c", sst2, [{"text": ONE, "label": 1}], features_of(TASKS["imdb"]))
    with pytest.raises(ValueError, match=r"no column 'sentence' \(found: text, label\)\. SST-2 has sentence, label"):
        read_split(sst2, "train", other)
    number = repository(tmp_path / "d", stsb, [{**pair, "label": 5.5}], features_of(stsb))
    with pytest.raises(ValueError, match=r"column 'label': 5\.5 is no label of STS-B"):
        read_split(stsb, "train", number)
    null = repository(tmp_path / "e", rte, [{"sentence1": ONE, "sentence2": None, "label": 1}], features_of(rte))
    with pytest.raises(ValueError, match=r"row 1, column 'sentence2': None is no text"):
        read_split(rte, "train", null)


def test_what_cannot_be_reached(tmp_path: Path) -> None:
    with pytest.raises(
        FileNotFoundError, match=r"'nyu-mll/glue' \(cola\) cannot be found or reached: .*folder of CoLA"
    ) as error:
        read_split(TASKS["cola"], "train", "hf:")
    assert "\n" not in str(error.value)
    cola = repository(tmp_path / "glue", TASKS["cola"], [{"sentence": ONE, "label": 1}], features_of(TASKS["cola"]))
    with pytest.raises(ValueError, match=r"\(sst2\), split 'train' cannot be read: .*cola") as not_there:
        read_split(TASKS["sst2"], "train", cola)
    assert "\n" not in str(not_there.value)
