"""Small files in the shapes in which the tasks are published, written from what is to be read of them."""

import json
from pathlib import Path

ONE, TWO = 'He said "no', "it\u2028isn't"
"""A quotation mark that is never closed, and a character that Python, but no row, ends a line at."""

_PARSES = [f"sentence{number}_{kind}" for kind in ("binary_parse", "parse") for number in (1, 2)]
MNLI_COLUMNS = ["index", "promptID", "pairID", "genre", *_PARSES, "sentence1", "sentence2"]
MRPC_HEADER = ("Quality", "#1 ID", "#2 ID", "#1 String", "#2 String")
STSB_HEADER = (
    "index",
    "genre",
    "filename",
    "year",
    "old_index",
    "source1",
    "source2",
    "sentence1",
    "sentence2",
    "score",
)


def tsv(*rows: tuple[object, ...], end: str = "\n") -> str:
    return "".join("\t".join(map(str, row)) + end for row in rows)


def write(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def mnli(*votes: str, label: str = "gold_label") -> str:
    """Two rows, with the annotators' labels before the one that counts: one of them in training, five in dev files."""
    names = [f"label{number + 1}" for number in range(len(votes))]
    parses = ("( a )",) * 4
    return tsv(
        (*MNLI_COLUMNS, *names, label),
        (0, 7, "7e", "fiction", *parses, ONE, TWO, *votes, "contradiction"),
        (1, 8, "8n", "fiction", *parses, TWO, ONE, *votes, "neutral"),
    )


def squad(*questions: tuple[str, list[tuple[str, int]]], context: str = "Caf\u00e9 \U0001f600 in Paris, Paris") -> str:
    """One paragraph; each question (id, [(answer, start)])."""
    qas = [
        {"id": name, "question": f"{name}?", "answers": [{"text": text, "answer_start": at} for text, at in answers]}
        for name, answers in questions
    ]
    return json.dumps({"version": "1.1", "data": [{"title": "T", "paragraphs": [{"context": context, "qas": qas}]}]})


# task, split, {file: content}, (texts, label) of each example
Case = tuple[str, str, dict[str, str], list[tuple[tuple[str, ...], int | float]]]

PAIRS: list[tuple[tuple[str, ...], int | float]] = [((ONE, TWO), 1), ((TWO, ONE), 0)]
CASES: list[Case] = [
    (
        "cola",
        "train",
        {"in_domain_train.tsv": tsv(("gj04", 1, "", ONE), ("bc01", 0, "*", TWO))},
        [((ONE,), 1), ((TWO,), 0)],
    ),
    ("cola", "train", {"train.tsv": tsv(("gj04", 1, "", ONE), ("bc01", 0, "*", TWO))}, [((ONE,), 1), ((TWO,), 0)]),
    (
        "cola",
        "validation",
        # The last row without a line feed, as it is published.
        {"in_domain_dev.tsv": "a\t1\t\tIn.\nb\t0\t*\tThe in.", "out_of_domain_dev.tsv": tsv(("c", 0, "??", "Out."))},
        [(("In.",), 1), (("The in.",), 0), (("Out.",), 0)],
    ),
    ("cola", "validation", {"dev.tsv": tsv(("c", 0, "??", "Out."))}, [(("Out.",), 0)]),
    ("mnli", "train", {"train.tsv": mnli("neutral")}, [((ONE, TWO), 2), ((TWO, ONE), 1)]),
    ("mnli", "validation_matched", {"dev_matched.tsv": mnli(*["neutral"] * 5)}, [((ONE, TWO), 2), ((TWO, ONE), 1)]),
    (
        "mnli",
        "validation_mismatched",
        {"dev_mismatched.tsv": mnli(*["neutral"] * 5)},
        [((ONE, TWO), 2), ((TWO, ONE), 1)],
    ),
    ("mrpc", "train", {"train.tsv": tsv(MRPC_HEADER, (1, 10, 11, ONE, TWO), (0, 12, 13, TWO, ONE))}, PAIRS),
    # Microsoft's file: a byte order mark, and rows that end as on Windows.
    (
        "mrpc",
        "validation",
        {
            "msr_paraphrase_train.txt": "\ufeff"
            + tsv(MRPC_HEADER, (1, 10, 11, ONE, TWO), (0, 11, 10, "x", "y"), (0, 12, 13, TWO, ONE), end="\r\n"),
            "mrpc_dev_ids.tsv": tsv((12, 13), (10, 11)),
        },
        PAIRS,
    ),
    (
        "mrpc",
        "train",
        {
            "msr_paraphrase_train.txt": "\ufeff"
            + tsv(MRPC_HEADER, (1, 10, 11, ONE, TWO), (0, 11, 10, "x", "y"), end="\r\n"),
            "mrpc_dev_ids.tsv": tsv((12, 13), (10, 11)),
        },
        [(("x", "y"), 0)],
    ),
    (
        "qnli",
        "validation",
        {
            "dev.tsv": tsv(
                ("index", "question", "sentence", "label"), (0, ONE, TWO, "not_entailment"), (1, TWO, ONE, "entailment")
            )
        },
        PAIRS,
    ),
    (
        "rte",
        "train",
        {
            "train.tsv": tsv(
                ("index", "sentence1", "sentence2", "label"),
                (0, ONE, TWO, "not_entailment"),
                (1, TWO, ONE, "entailment"),
            )
        },
        PAIRS,
    ),
    (
        "qqp",
        "validation",
        {
            "dev.tsv": tsv(
                ("id", "qid1", "qid2", "question1", "question2", "is_duplicate"),
                (5, 1, 2, ONE, TWO, 1),
                (6, 3, 4, TWO, "", 0),
            )
        },
        [((ONE, TWO), 1), ((TWO, ""), 0)],
    ),
    (
        "sst2",
        "train",
        {"train.tsv": tsv(("sentence", "label"), (ONE + " ", 1), (TWO, 0))},
        [((ONE + " ",), 1), ((TWO,), 0)],
    ),
    (
        "stsb",
        "train",
        {
            "sts-train.csv": tsv(
                ("main-captions", "MSRvid", "2012test", "0001", "5.000", ONE, TWO),
                ("main-news", "headlines", "2016", "2", "0.4", TWO, ONE, "EMM (http://x)", "EMM (http://y)"),
            )
        },
        [((ONE, TWO), 5.0), ((TWO, ONE), 0.4)],
    ),
    (
        "stsb",
        "validation",
        {"dev.tsv": tsv(STSB_HEADER, (0, "main-news", "MSRpar", "2012", "0", "none", "none", ONE, TWO, "2.75"))},
        [((ONE, TWO), 2.75)],
    ),
    (
        "wnli",
        "train",
        {
            "train.tsv": tsv(("index", "sentence1", "sentence2", "label"), (1, ONE, TWO, 1)),
            "val.tsv": tsv((0, TWO, ONE, 0)),
        },
        PAIRS,
    ),
    (
        "wnli",
        "validation",
        {"dev.tsv": tsv(("index", "sentence1", "sentence2", "label"), (0, ONE, TWO, 1), (1, TWO, ONE, 0))},
        PAIRS,
    ),
]

INDEXED = ("index", "sentence1", "sentence2", "label")
# task, split, {file: content}, what its error says
BROKEN: list[tuple[str, str, dict[str, str], str]] = [
    (
        "rte",
        "train",
        {"train.tsv": tsv(INDEXED, (0, ONE, TWO, "maybe"))},
        r"train\.tsv, line 2, column 'label': 'maybe' is none of entailment, not_entailment\. Give",
    ),
    (
        "rte",
        "train",
        {"train.tsv": tsv(INDEXED, (0, ONE, "entailment"))},
        r"line 2: 3 fields, not 4; the last is column 'sentence2'",
    ),
    ("rte", "train", {"train.tsv": tsv(INDEXED, (0, "a\tb", TWO, "entailment"))}, "line 2: 5 fields, not 4"),
    (
        "rte",
        "train",
        {"train.tsv": tsv(INDEXED[:3], (0, ONE, TWO))},
        r"line 1: no column 'label' \(found: index, sentence1, sentence2\)",
    ),
    ("rte", "train", {"train.tsv": ""}, "train.tsv: it is empty"),
    ("rte", "train", {"train.tsv": tsv(INDEXED)}, "no examples of split 'train'"),
    ("rte", "train", {"train.tsv": tsv(INDEXED, (0, ONE, TWO, "entailment")) + "\n"}, "line 3: 1 fields, not 4"),
    ("mnli", "train", {"train.tsv": mnli("neutral", label="label")}, "no column 'gold_label'"),
    (
        "mrpc",
        "train",
        {"train.tsv": tsv(("Quality", "#1 String", "#2 String"), (1, ONE, TWO))},
        "no column '#1 ID', '#2 ID'",
    ),
    (
        "mrpc",
        "train",
        {"msr_paraphrase_train.txt": tsv(MRPC_HEADER, (1, 1, 2, ONE, TWO)), "mrpc_dev_ids.tsv": "1 2\n"},
        r"dev_ids\.tsv, line 1: 1 fields, not the ids",
    ),
    ("cola", "train", {"train.tsv": tsv(("index", "sentence"), (0, ONE))}, "line 1: 2 fields, not 4"),
    ("cola", "train", {"train.tsv": tsv(("a", "2", "", ONE))}, "line 1, column 'label': '2' is none of 0, 1"),
    (
        "stsb",
        "train",
        {"sts-train.csv": tsv(("a", "b", "c", "d", "5.1", ONE, TWO))},
        r"column 'score': '5\.1' is no number from 0\.0 to 5\.0",
    ),
    ("stsb", "train", {"sts-train.csv": tsv(("a", "b", "c", "d", "nan", ONE, TWO))}, "'nan' is no number"),
    ("stsb", "train", {"sts-train.csv": tsv(("a", "b", "c", "d", "high", ONE, TWO))}, "'high' is no number"),
    ("stsb", "train", {"sts-train.csv": tsv(("a", "b", "c", "d", "5", ONE, TWO, "x"))}, "8 fields, not 7 or 9"),
    (
        "wnli",
        "train",
        {"train.tsv": tsv(INDEXED, (0, ONE, TWO, 1)), "val.tsv": tsv((0, ONE, TWO, 1))},
        r"val\.tsv, line 1, column 'index': '0' is .*train\.tsv, line 2 as well\. Leave out val\.tsv",
    ),
]
