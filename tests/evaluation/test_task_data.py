"""Published files of every task: small ones of the same shape, broken ones, and the real ones against csv's reader."""

import csv
import json
import lzma
import os
from collections import Counter
from pathlib import Path

import pytest

from evaluation.examples import Answer
from evaluation.task_data import read_split
from evaluation.tasks import GLUE, IMDB, SQUAD, TASKS
from tests.evaluation.task_files import BROKEN, CASES, ONE, TWO, Case, squad, tsv, write

FOLDER = Path(os.environ.get("DISTILLERY_DATA", Path(__file__).parents[2] / ".." / "shared" / "data"))
real = pytest.mark.skipif(not FOLDER.is_dir(), reason=f"no real data at {FOLDER}; set DISTILLERY_DATA to its folder")


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[0]}-{case[1]}-{'+'.join(case[2])}")
@pytest.mark.parametrize("is_within_glue", [False, True])
def test_what_is_read_of_a_file_of_glue(tmp_path: Path, case: Case, is_within_glue: bool) -> None:
    name, split, files, expected = case
    folder = tmp_path / TASKS[name].title if is_within_glue else tmp_path
    for file, content in files.items():
        write(folder / file, content)
    found = read_split(TASKS[name], split, str(tmp_path))
    assert [(example.texts, example.label) for example in found.examples] == expected
    assert [type(example.label) for example in found.examples] == [type(label) for _, label in expected]
    assert [example.id for example in found.examples] == [str(number) for number in range(len(expected))]
    assert found.files == tuple(folder / file for file in files if file != "mrpc_dev_ids.tsv")
    assert found.skipped == ()


def test_every_task_has_a_case() -> None:
    assert {name for name, *_ in CASES} == {task.name for task in GLUE}


def test_broken_rows_of_qqp_are_left_out_and_named(tmp_path: Path) -> None:
    rows = [(number, 1, 2, f"q{number}", "why", number % 2) for number in range(300)]
    header = ("id", "qid1", "qid2", "question1", "question2", "is_duplicate")
    whole = tsv(header, *rows[:100]) + "7\t1\t2\thalf a\nquestion\twhy\t1\n" + tsv(*rows[100:])
    file = write(tmp_path / "train.tsv", whole)
    found = read_split(TASKS["qqp"], "train", str(tmp_path))
    assert [example.texts[0] for example in found.examples] == [f"q{number}" for number in range(300)]
    assert found.skipped == (
        f"{file}, line 102: 4 fields, not 6; the last is column 'question1'",
        f"{file}, line 103: 3 fields, not 6; the last is column 'qid2'",
    )
    write(file, tsv(header, *rows[:100]) + "7\t1\n" * 2)
    with pytest.raises(ValueError, match=r"line 102: 2 fields.* and 1 rows more like it"):
        read_split(TASKS["qqp"], "train", str(tmp_path))


@pytest.mark.parametrize(("name", "split", "files", "message"), BROKEN)
def test_a_file_that_is_not_as_published(
    tmp_path: Path, name: str, split: str, files: dict[str, str], message: str
) -> None:
    for file, content in files.items():
        write(tmp_path / file, content)
    with pytest.raises(ValueError, match=message) as error:
        read_split(TASKS[name], split, str(tmp_path))
    assert "\n" not in str(error.value)


def test_text_that_is_not_utf8(tmp_path: Path) -> None:
    write(tmp_path / "train.tsv", b"sentence\tlabel\ngood\t1\ncaf\xe9\t0\n")
    with pytest.raises(ValueError, match=r"train\.tsv, line 3: .* at byte 3"):
        read_split(TASKS["sst2"], "train", str(tmp_path))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cola", r"no dev\.tsv, or in_domain_dev\.tsv with out_of_domain_dev\.tsv: split 'validation' of CoLA\. Give"),
        ("squad", r"no dev-v1\.1\.json\. Give"),
    ],
)
def test_files_that_are_not_there(tmp_path: Path, name: str, message: str) -> None:
    write(tmp_path / "in_domain_dev.tsv", "a\t1\t\tHalf of the split.\n")
    with pytest.raises(FileNotFoundError, match=message):
        read_split(TASKS[name], "validation", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"no test\.jsonl or test\.jsonl\.gz or .*xz"):
        read_split(IMDB, "test", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="is no folder"):
        read_split(IMDB, "test", str(tmp_path / "imdb"))
    with pytest.raises(
        ValueError, match=r"MNLI has no labelled split 'validation'\. Give one of train, validation_matched"
    ):
        read_split(TASKS["mnli"], "validation", str(tmp_path))


def test_imdb(tmp_path: Path) -> None:
    lines = json.dumps({"label": 1, "rating": 9, "text": ONE + "<br />"}) + "\n" + json.dumps({"text": TWO, "label": 0})
    write(tmp_path / "train.jsonl", lines)
    write(tmp_path / "test.jsonl.xz", lzma.compress(lines.encode()))
    for split in IMDB.splits:
        found = read_split(IMDB, split, str(tmp_path)).examples
        assert [(example.id, example.texts, example.label) for example in found] == [
            ("0", (ONE + "<br />",), 1),
            ("1", (TWO,), 0),
        ]
    write(tmp_path / "test.jsonl.xz", lzma.compress((lines + "\n").encode() * 1000)[:-20])
    with pytest.raises(OSError, match=r"cannot be read .*complete"):
        read_split(IMDB, "test", str(tmp_path))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"text": "x", "label": -1}', "line 2, field 'label': -1 is neither 0"),
        ('{"text": "x", "label": true}', "'label': True is neither"),
        ('{"text": "x"}', "'label': None is neither"),
        ('{"review": "x", "label": 1}', "line 2, field 'text': no text"),
        ('["x", 1]', "field 'text': no text"),
        ('{"text": "x"', "line 2: not JSON"),
        ("", "line 2: not JSON"),
    ],
)
def test_reviews_that_are_not_imdbs(tmp_path: Path, line: str, message: str) -> None:
    write(tmp_path / "train.jsonl", '{"text": "good", "label": 1}\n' + line + "\n")
    with pytest.raises(ValueError, match=message):
        read_split(IMDB, "train", str(tmp_path))


def test_squad(tmp_path: Path) -> None:
    file = write(tmp_path / "dev-v1.1.json", squad(("q1", [("Paris", 10), ("Paris", 17)]), ("q2", [("\U0001f600", 5)])))
    for source in (tmp_path, file):
        found = read_split(SQUAD, "validation", str(source))
        assert found.files == (file,)
        assert [(example.id, example.texts) for example in found.examples] == [
            (name, (f"{name}?", "Caf\u00e9 \U0001f600 in Paris, Paris")) for name in ("q1", "q2")
        ]
        assert found.examples[0].label == (Answer("Paris", 10), Answer("Paris", 17))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (squad(("q1", [])), r"article 'T', question 'q1': no answer.*SQuAD 2\.0"),
        (squad(("q1", [("Paris", 9)])), "question 'q1', answer_start 9: the context has ' Pari' there, not 'Paris'"),
        (squad(("q1", [("Paris", -5)])), "answer_start -5"),
        (squad(("q1", [("Paris", 10)]), ("q1", [("Paris", 10)])), "question 'q1': the id occurs twice"),
        (squad(), "no questions"),
        (squad(("q1", [("Paris", 10)]))[:-5], "not JSON"),
        ("[]", "not in SQuAD's form"),
        ('{"data": [{"paragraphs": [{"qas": [{"id": "a"}]}]}]}', "not in SQuAD's form .*'answers'"),
    ],
)
def test_a_file_that_is_not_squads(tmp_path: Path, content: str, message: str) -> None:
    write(tmp_path / "train-v1.1.json", content)
    with pytest.raises(ValueError, match=message) as error:
        read_split(SQUAD, "train", str(tmp_path))
    assert "\n" not in str(error.value)


@real
@pytest.mark.parametrize(
    ("name", "split", "files", "columns", "count"),
    [
        # the columns of the texts and of the label, counted from 0
        ("cola", "train", ["in_domain_train.tsv"], (3, 1), 8551),
        ("cola", "validation", ["in_domain_dev.tsv", "out_of_domain_dev.tsv"], (3, 1), 1043),
        ("sst2", "train", ["train.tsv"], (0, 1), 67349),
        ("sst2", "validation", ["dev.tsv"], (0, 1), 872),
        ("stsb", "train", ["sts-train.csv"], (5, 6, 4), 5749),
        ("stsb", "validation", ["sts-dev.csv"], (5, 6, 4), 1500),
        ("rte", "train", ["train.tsv"], (1, 2, 3), 2490),
        ("rte", "validation", ["dev.tsv"], (1, 2, 3), 277),
        ("wnli", "train", ["train.tsv", "val.tsv"], (1, 2, 3), 635),
        ("wnli", "validation", ["dev.tsv"], (1, 2, 3), 71),
        ("qnli", "validation", ["dev.tsv"], (1, 2, 3), 5463),
    ],
)
def test_real_files_of_glue(name: str, split: str, files: list[str], columns: tuple[int, ...], count: int) -> None:
    task = TASKS[name]
    rows: list[list[str]] = []
    for file in files:
        with (FOLDER / "glue" / task.title / file).open(encoding="utf-8", newline="") as stream:
            rows += csv.reader(stream, delimiter="\t", quoting=csv.QUOTE_NONE)
    rows = [row for row in rows if row[columns[-1]] != "label"]  # headers
    found = read_split(task, split, str(FOLDER / "glue")).examples
    assert len(found) == count == len(rows)
    assert [example.texts for example in found] == [tuple(row[i] for i in columns[:-1]) for row in rows]
    written = {"entailment": "0", "not_entailment": "1"}
    labels = [row[columns[-1]] for row in rows]
    assert [example.label for example in found] == [float(written.get(label, label)) for label in labels]


@real
def test_real_reviews_and_questions() -> None:
    for split in IMDB.splits:
        found = read_split(IMDB, split, str(FOLDER / "imdb")).examples
        assert Counter(example.label for example in found) == {0: 12_500, 1: 12_500}
    for file, questions, articles in (("dev-v1.1.json", 10_570, 48), ("train-v1.1-prefix.json", 4_370, 12)):
        path = FOLDER / "squad" / file
        examples = read_split(SQUAD, "validation", str(path)).examples
        assert len(examples) == questions
        assert len(json.loads(path.read_bytes())["data"]) == articles
        answers = {len(example.label) for example in examples if isinstance(example.label, tuple)}
        assert answers == {1} if file.startswith("train") else max(answers) > 1
