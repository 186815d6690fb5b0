"""Scores, retention and GLUE's mean, against what comes out by hand."""

import math
from dataclasses import replace

import pytest

from evaluation.published import published
from evaluation.table_figures import Table, table_of
from evaluation.tasks import TASKS
from tests.evaluation.finetuned import CELL, NINE, OTHER, PUBLISHED, nine, result

NAN = math.nan


def of(teacher: object, student: object, **options: object) -> Table:
    return table_of({"teacher": [teacher], "student": [student]}, **options)  # type: ignore[dict-item, arg-type]


def test_all_nine_make_glues_score() -> None:
    table = table_of({"teacher": nine("teacher"), "student": nine("student")})
    assert table.macro is not None
    assert table.macro.is_glue_score
    assert table.macro.title == "GLUE score"
    # 56.3 + 84.7 + 88.6 + 91.8 + 89.6 + 69.3 + 92.7 + 89.0 + 53.5 = 715.5, and the student's 693.1
    assert table.macro.scores["teacher"] == pytest.approx(7.155 / 9)
    assert table.macro.scores["student"] == pytest.approx(6.931 / 9)
    assert table.macro.retention["student"].value == pytest.approx(6931 / 7155)
    for task, theirs, mine in zip(NINE, PUBLISHED["teacher"], PUBLISHED["student"], strict=True):
        assert table.scores["teacher"][task].value == pytest.approx(theirs)
        assert table.retention["student"][task].value == pytest.approx(mine / theirs)
        assert table.retention["student"][task].why == ""
    assert table.missing == {"teacher": ("imdb", "squad"), "student": ("imdb", "squad")}


def test_two_metrics_and_two_dev_sets() -> None:
    mrpc = [result("mrpc", {"validation": {"f1": f1, "accuracy": a}}) for f1, a in ((0.9, 0.8), (0.8, 0.7))]
    table = of(*mrpc)
    assert table.scores["teacher"]["mrpc"].parts == pytest.approx((0.85,))
    assert table.retention["student"]["mrpc"].value == pytest.approx(75 / 85)
    mnli = [
        result("mnli", {"validation_matched": {"accuracy": m}, "validation_mismatched": {"accuracy": mm}})
        for m, mm in ((0.8, 0.84), (0.6, 0.63))
    ]
    table = of(*mnli)
    assert table.scores["teacher"]["mnli"].parts == (0.8, 0.84)
    assert table.scores["teacher"]["mnli"].value == pytest.approx(0.82)
    assert table.retention["student"]["mnli"].parts == pytest.approx((0.75, 0.75))
    assert table.retention["student"]["mnli"].value == pytest.approx(0.615 / 0.82)
    squad = [result("squad", {"validation": {"exact_match": em, "f1": f1}}) for em, f1 in ((0.8, 0.9), (0.4, 0.6))]
    table = of(*squad)
    assert table.scores["student"]["squad"].parts == (0.4, 0.6)
    assert table.retention["student"]["squad"].parts == pytest.approx((1 / 2, 2 / 3))
    assert table.retention["student"]["squad"].value == pytest.approx(2 / 3)
    assert table.macro is None


def test_with_fewer_than_nine_the_mean_is_over_what_all_have() -> None:
    results = {
        "teacher": [result("cola", 0.5), result("rte", 0.7), result("wnli", 0.6)],
        "a": [result("cola", 0.4), result("rte", 0.6), result("sst2", 0.9), result("imdb", 0.9)],
        "b": [result("wnli", 0.1), result("rte", 0.35), result("cola", 0.25)],
    }
    macro = table_of(results).macro
    assert macro is not None
    assert macro.tasks == ("cola", "rte")
    assert macro.title == "mean of 2 of GLUE's 9 (CoLA, RTE)"
    assert not macro.is_glue_score
    assert macro.scores == pytest.approx({"teacher": 0.6, "a": 0.5, "b": 0.3})
    assert macro.retention["a"].value == pytest.approx(5 / 6)
    assert macro.retention["b"].value == pytest.approx(1 / 2)
    assert macro.missing == {
        **dict.fromkeys(("mnli", "mrpc", "qnli", "qqp", "stsb"), ("teacher", "a", "b")),
        "sst2": ("teacher", "b"),
        "wnli": ("a",),
    }
    asked = table_of(results, tasks=["wnli", "rte"])
    assert asked.tasks == ("rte", "wnli")
    assert asked.missing == {"teacher": (), "a": ("wnli",), "b": ()}
    assert asked.macro is not None
    assert asked.macro.tasks == ("rte",)
    assert set(asked.macro.missing) == set(NINE) - {"rte"}


@pytest.mark.parametrize(
    ("teacher", "student", "why"),
    [
        (0.0, 0.2, "the teacher's score is 0"),
        (-0.021, 0.2, "the teacher's score is -2.1"),
        (NAN, 0.2, "the teacher's score is undefined"),
        (0.5, NAN, "the student's score is undefined"),
    ],
)
def test_no_retention_where_there_is_no_ratio(teacher: float, student: float, why: str) -> None:
    table = of(result("cola", teacher), result("cola", student))
    retention = table.retention["student"]["cola"]
    assert math.isnan(retention.value)
    assert all(math.isnan(part) for part in retention.parts)
    assert retention.why == why
    assert table.macro is not None
    assert math.isnan(table.macro.retention["student"].value)


def test_a_negative_score_counts_in_the_mean_and_a_negative_student_keeps_less_than_nothing() -> None:
    table = table_of(
        {
            "teacher": [result("cola", -0.1), result("rte", 0.5)],
            "student": [result("cola", -0.2), result("rte", 0.3)],
        }
    )
    assert table.macro is not None
    assert table.macro.scores == pytest.approx({"teacher": 0.2, "student": 0.05})
    assert table.macro.retention["student"].value == pytest.approx(0.25)
    assert of(result("cola", 0.5), result("cola", -0.1)).retention["student"]["cola"].value == pytest.approx(-0.2)


def test_one_part_may_be_undefined_alone() -> None:
    teacher = result("squad", {"validation": {"exact_match": 0.0, "f1": 0.5}})
    retention = of(teacher, result("squad", {"validation": {"exact_match": 0.1, "f1": 0.4}})).retention["student"][
        "squad"
    ]
    assert retention.value == pytest.approx(0.8)
    assert math.isnan(retention.parts[0])
    assert retention.parts[1] == pytest.approx(0.8)
    assert retention.why == "the teacher's score is 0"


def test_an_undefined_metric_makes_the_mean_undefined_and_is_named() -> None:
    mixed = result("stsb", {"validation": {"pearson": 0.9, "spearman": NAN}})
    table = table_of({"teacher": nine("teacher"), "student": nine("student", stsb=mixed)})
    assert table.macro is not None
    assert math.isnan(table.scores["student"]["stsb"].value)
    assert math.isnan(table.macro.scores["student"])
    assert table.macro.remarks["student"] == ("The mean is undefined, since that of STS-B is",)
    assert table.macro.scores["teacher"] == pytest.approx(7.155 / 9)


def test_the_cell_with_the_best_median_counts_not_the_best_run() -> None:
    lucky, steady = (0.1, 0.2, 0.99), (0.5, 0.7, 0.6)
    score = of(result("rte", 0.8), result("rte", cells={CELL: lucky, OTHER: steady})).scores["student"]["rte"]
    assert score.value == 0.6
    assert score.spread is not None
    assert (score.spread.median, score.spread.lowest, score.spread.highest) == (0.6, 0.5, 0.7)
    assert (score.spread.seeds, score.spread.undefined) == (3, 0)
    even = of(result("rte", 0.8), result("rte", 0.4, 0.5, 0.8, 0.1)).scores["student"]["rte"]
    assert even.value == pytest.approx(0.45)


def test_each_metric_has_its_own_median() -> None:
    seeds = [{"validation": {"f1": f1, "accuracy": a}} for f1, a in ((0.9, 0.5), (0.7, 0.6), (0.8, 0.1))]
    score = of(result("mrpc", 0.8), result("mrpc", *seeds)).scores["student"]["mrpc"]
    assert score.value == pytest.approx((0.8 + 0.5) / 2)
    assert score.spread is not None
    assert (score.spread.lowest, score.spread.median, score.spread.highest) == (0.7, 0.8, 0.9)


def test_a_seed_that_is_undefined_is_not_left_out_of_a_median() -> None:
    broken = result("stsb", 0.7, NAN, 0.9)
    reasons = [replace(run, remarks={"spearman": "all equal"} if run.seed == 1 else {}) for run in broken.runs]
    score = of(result("stsb", 0.8), replace(broken, runs=tuple(reasons))).scores["student"]["stsb"]
    assert math.isnan(score.value)
    assert score.spread is not None
    assert math.isnan(score.spread.median)
    assert (score.spread.lowest, score.spread.highest, score.spread.undefined) == (0.7, 0.9, 1)
    assert score.remarks == ("STS-B, spearman: all equal (seed 1)",)
    two = result("stsb", cells={CELL: (0.7, NAN, 0.9), OTHER: (0.1, 0.2, 0.3)})
    whole = replace(
        two, runs=tuple(replace(run, remarks={"spearman": "all equal"}) for run in two.runs[:3]) + two.runs[3:]
    )
    assert of(result("stsb", 0.8), whole).scores["student"]["stsb"].value == 0.2
    assert of(result("stsb", 0.8), whole).scores["student"]["stsb"].remarks == ()
    none = of(result("stsb", 0.8), result("stsb", NAN, NAN)).scores["student"]["stsb"].spread
    assert none is not None
    assert math.isnan(none.lowest)
    assert none.undefined == 2


def test_subsets_are_named_with_their_sizes() -> None:
    table = table_of(
        {
            "teacher": nine("teacher"),
            "student": nine("student", sst2=result("sst2", 0.9, train=(8000, 67349)), rte=result("rte", 0.6)),
        }
    )
    assert table.scores["student"]["sst2"].remarks == ("SST-2: trained on 8,000 of 67,349",)
    assert table.scores["student"]["rte"].remarks == ()
    assert table.retention["student"]["sst2"].remarks == (
        "trained on 8,000 of 67,349 examples, the teacher on all 1,000 examples",
    )
    assert not math.isnan(table.retention["student"]["sst2"].value)
    assert table.macro is not None
    assert table.macro.remarks == {"teacher": (), "student": ("The mean counts figures of subsets: SST-2",)}
    assert table.macro.retention["student"].remarks == ("see SST-2",)
    both = of(*[result("mnli", 0.8, train=(10, 20), dev=(3, 4))] * 2)
    assert both.scores["student"]["mnli"].remarks == (
        "MNLI: trained on 10 of 20, evaluated on 3 of 4 (validation_matched), evaluated on 3 of 4 (validation_mismatched)",
    )
    assert both.retention["student"]["mnli"].value == 1
    assert both.retention["student"]["mnli"].remarks == ()


def test_other_dev_sets_refuse_a_retention_and_that_of_the_mean() -> None:
    student = nine("student", rte=result("rte", 0.6, dev=(100, 200)), imdb=result("imdb", 0.9))
    table = table_of({"teacher": nine("teacher"), "student": student})
    retention = table.retention["student"]["rte"]
    assert math.isnan(retention.value)
    why = "evaluated on 100 of 200 examples (validation), the teacher on all 200 examples"
    assert retention.why == why
    assert table.macro is not None
    assert not math.isnan(table.macro.scores["student"])
    assert math.isnan(table.macro.retention["student"].value)
    assert table.macro.retention["student"].why == f"RTE: {why}"
    whole = of(result("rte", 0.6, dev=(200, 200)), result("rte", 0.6, dev=(200, 277)))
    assert math.isnan(whole.retention["student"]["rte"].value)


def test_what_else_differs_is_said() -> None:
    teacher = result("rte", 0.5, 0.6, 0.7, settings={"max_length": 128, "precision": "bf16"})
    student = result(
        "rte", cells={CELL: (0.5, 0.6), OTHER: (0.4, 0.4)}, settings={"max_length": 64, "temperature": 2.0}
    )
    retention = of(teacher, student).retention["student"]["rte"]
    assert retention.value == pytest.approx(0.55 / 0.6)
    assert retention.remarks == (
        "max_length is 64, the teacher's 128",
        "for the student alone: temperature 2.0",
        "for the teacher alone: precision bf16",
        "2 seeds, the teacher 3",
        "chosen from batch size 32, learning rate 2e-05/5e-05, 3 epochs (2 cells), the teacher from batch size 32, "
        "learning rate 5e-05, 3 epochs (1 cell)",
    )
    moved = {split: replace(used, files=(f"/elsewhere/{split}.tsv",)) for split, used in student.data.items()}
    other = student.settings | {"weights": "ab"}  # type: ignore[operator]
    assert of(student, replace(student, data=moved, settings=other)).retention["student"]["rte"].remarks == ()
    taught = of(student, replace(student, teacher="runs/big/rte/model"))
    assert taught.retention["student"]["rte"].remarks == ("taught by runs/big/rte/model, the teacher by labels alone",)
    assert taught.scores["student"]["rte"].remarks == ("RTE: a second distillation, taught by runs/big/rte/model",)


def test_as_many_but_other_examples_are_other_dev_sets() -> None:
    sides = [
        result("rte", 0.6, settings={"examples": {"train": train, "validation": dev}}) for train, dev in ("ab", "cb")
    ]
    retention = of(*sides).retention["student"]["rte"]
    assert retention.value == 1
    assert retention.remarks == ("trained on other examples than the teacher, though as many",)
    sides[1] = replace(sides[1], settings={"examples": {"train": "a", "validation": "c"}})
    retention = of(*sides).retention["student"]["rte"]
    assert math.isnan(retention.value)
    assert retention.why == "evaluated on other examples than the teacher, though as many (validation)"


def test_the_papers_rows_imply_its_97_per_cent() -> None:
    table = published(tuple(TASKS), NINE)
    base, distil, again = table.models
    assert table.macro is not None
    assert {name: round(100 * score, 1) for name, score in table.macro.scores.items()} == {base: 79.5, distil: 77.0}
    assert round(100 * table.macro.retention[distil].value) == 97
    assert table.retention[again]["squad"].parts == pytest.approx((791 / 812, 869 / 885))
    assert table.retention[distil]["imdb"].value == pytest.approx(9282 / 9346)
    assert table.missing[again] == (*NINE, "imdb")
    fewer = published(("rte", "squad"), ("rte",))
    assert fewer.macro is not None
    assert fewer.macro.scores == pytest.approx({base: 0.693, distil: 0.599})
    assert fewer.tasks == ("rte", "squad")
    assert published(("rte",), ("rte",)).models == (base, distil)
