"""Accuracy and speed of variants, against transformers, scikit-learn and evaluation.heldout."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score

from data.batch import Batch as PackedBatch
from data.masking import masked_counts
from evaluation.examples import Example
from evaluation.heldout import evaluate
from evaluation.tasks import TASKS, Kind
from exporting.config import ExportConfig
from exporting.hugging_face import load_hugging_face, runner
from exporting.measure import measure
from exporting.measure_scores import OneByOne, examination, mask_texts
from exporting.passages import SENTENCES
from exporting.source import Source, load_source
from exporting.texts import calibration_texts, spread
from exporting.variant import TEACHER, Batch, Outputs, Run, Variant
from finetuning.material import collator_of, make_inputs
from finetuning.predicting import predict
from model.hub import load_model
from tests.evaluation.task_files import squad, tsv, write
from tests.exporting.small import write_student, write_task

LABELS = [number % 3 == 0 for number in range(len(SENTENCES))]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A masked LM, students of two tasks, a teacher, and data for all of them."""
    folder = tmp_path_factory.mktemp("made")
    write_student(folder / "student")
    write_task(folder, "sst2")
    write_task(folder, "squad")
    write_task(folder / "teacher", "sst2", "bert")
    rows = [(sentence, int(label)) for sentence, label in zip(SENTENCES, LABELS, strict=True)]
    for name in ("train", "dev"):
        write(folder / "data" / "SST-2" / f"{name}.tsv", tsv(("sentence", "label"), *rows))
    write(folder / "text.txt", "\n\n".join(SENTENCES))
    return folder


def config(made: Path, name: str, data: str = "", **more: object) -> ExportConfig:
    return ExportConfig(input=str(made / name), output="unused", data=data and str(made / data), **more)  # type: ignore[arg-type]


def variant(name: str, load: object = load_hugging_face) -> Variant:
    return Variant(name=name, format="hf", precision="fp32", file="model.safetensors", runtime="torch", load=load)  # type: ignore[arg-type]


def upside_down(folder: Path, threads: int) -> Run:
    """A backend that takes the worst for the best."""
    run = load_hugging_face(folder, threads)
    return lambda batch: tuple(-value for value in run(batch))


def test_accuracy_speed_and_what_is_lost(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = load_source(str(made / "sst2"))
    threads = torch.get_num_threads()
    found = measure(
        [variant("PyTorch"), variant("wrong", upside_down)],
        source,
        config(made, "sst2", "data", teacher=str(made / "teacher/sst2/model")),
        source.folder,
    )
    assert torch.get_num_threads() == threads
    with torch.inference_mode():
        outputs = [source.model(**source.tokenizer(text, return_tensors="pt")).logits[0] for text in SENTENCES]
    predictions = [int(logits.argmax()) for logits in outputs]
    right = accuracy_score(LABELS, predictions)
    assert 0 < right < 1
    own, wrong, teacher = found["PyTorch"], found["wrong"], found[TEACHER]
    assert (own.metric, own.examples) == ("accuracy", len(SENTENCES))
    assert own.score == pytest.approx(right)
    assert wrong.score == pytest.approx(1 - right)
    assert wrong.drop == pytest.approx(100 * (2 * right - 1))
    assert own.drop == 0
    assert teacher.speedup == 1
    assert own.speedup > 0
    assert own.latency_ms > 0
    said = capsys.readouterr().out
    assert f"PyTorch: {own.latency_ms:.2f} ms an input" in said
    assert f"accuracy {100 * own.score:.2f} on {len(SENTENCES)} examples" in said


def test_without_data_and_teacher_speed_alone_is_measured(made: Path) -> None:
    source = load_source(str(made / "sst2"))
    (only,) = measure([variant("PyTorch")], source, config(made, "sst2"), source.folder).values()
    assert only.metric == ""
    assert np.isnan([only.score, only.drop, only.speedup]).all()
    assert only.latency_ms > 0


def test_a_teacher_of_another_kind_is_timed_only(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = load_source(str(made / "sst2"))
    given = config(made, "sst2", "data", teacher=str(made / "student"))
    found = measure([variant("PyTorch")], source, given, source.folder)
    assert "the teacher's accuracy is not measured: " in capsys.readouterr().out
    assert np.isnan(found[TEACHER].score)
    assert found[TEACHER].latency_ms > 0
    assert found["PyTorch"].score > 0


def packed(masked: list[tuple[Batch, np.ndarray, np.ndarray]]) -> PackedBatch:
    """The same inputs in the form that training evaluates on."""
    rows = [batch["input_ids"][0] for batch, _, _ in masked]
    ends = np.cumsum([0, *map(len, rows)])
    return PackedBatch(
        token_ids=torch.from_numpy(np.concatenate(rows)),
        position_ids=torch.cat([torch.arange(len(row)) for row in rows]),
        cu_seqlens=torch.tensor(ends, dtype=torch.int32),
        max_seqlen=max(map(len, rows)),
        masked_positions=torch.from_numpy(
            np.concatenate([positions + end for (_, positions, _), end in zip(masked, ends[:-1], strict=True)])
        ),
        masked_labels=torch.from_numpy(np.concatenate([labels for _, _, labels in masked])),
        sequence_ids=np.arange(len(rows)),
    )


def test_masked_words_are_scored_as_held_out_text_in_training_is(made: Path) -> None:
    source = load_source(str(made / "student"))
    exam = examination(source, str(made / "text.txt"), 0)
    found = exam.score(runner(source.model))
    masked = mask_texts(source, list(SENTENCES))
    figures = evaluate(
        load_model(source.folder),
        None,
        [packed(masked)],
        temperature=1.0,
        device=torch.device("cpu"),
        reduce=lambda sums: sums,
    )
    assert (exam.metric, exam.examples) == ("masked words", len(SENTENCES))
    assert found.loss == pytest.approx(figures["eval_mlm_loss"], rel=1e-4)
    assert found.value == pytest.approx(figures["eval_mlm_accuracy"])


def test_masks_are_fixed_and_as_many_as_in_training(made: Path) -> None:
    source = load_source(str(made / "student"))
    short = replace(source, max_length=16)
    once, again = (mask_texts(short, list(SENTENCES)) for _ in range(2))
    for (batch, positions, labels), (other, _, _), text in zip(once, again, SENTENCES, strict=True):
        ids = source.tokenizer(text)["input_ids"]
        true = batch["input_ids"][0].copy()
        true[positions] = labels
        assert true.tolist() == [*ids[: min(len(ids), 16) - 1], ids[-1]]
        assert len(positions) == masked_counts([len(true)], 0.15)[0]
        assert np.array_equal(batch["input_ids"], other["input_ids"])
    changed = sum((batch["input_ids"][0, positions] != labels).sum() for batch, positions, labels in once)
    assert changed > sum(len(labels) for _, _, labels in once) / 2


def test_a_masked_lm_is_not_calibrated_on_what_it_is_measured_on(made: Path, tmp_path: Path) -> None:
    source = load_source(str(made / "student"))
    documents = [f"{number} {sentence}" for number in range(3) for sentence in SENTENCES][:130]
    file = write(tmp_path / "text.txt", "\n\n".join(documents))
    measured = set(spread(documents, 20))
    others = [document for document in documents if document not in measured]
    given = config(made, "student", examples=20)
    texts, origin = calibration_texts(source, replace(given, data=str(file)))
    assert origin == str(file)
    right = spread(others, 100)
    assert len(texts) == len(right) == 100
    assert all(full.startswith(text) for (text,), full in zip(texts, right, strict=True))
    texts, origin = calibration_texts(source, replace(given, data=str(file), examples=40))  # leaves 90
    assert len(texts) == 100
    assert origin == f"{file}, on which accuracy is measured, too"


def test_text_without_a_word_to_mask_is_refused(made: Path) -> None:
    source = load_source(str(made / "student"))
    with pytest.raises(ValueError, match="no text of --data has a word"):
        mask_texts(source, ["", " "])


def test_inputs_of_a_batch_are_read_alone_and_unpadded(made: Path) -> None:
    """Windows of questions, of several lengths in a batch: what a variant says of them is what transformers does."""
    source: Source = load_source(str(made / "squad"))
    write(made / "SQuAD" / "dev-v1.1.json", squad(("who", [("Paris", 10)]), ("where is this", [("Paris", 17)])))
    exam = examination(source, str(made / "SQuAD"), 0)
    assert (exam.metric, exam.examples) == ("f1", 2)
    seen: list[tuple[int, ...]] = []
    run = runner(source.model)

    def watched(batch: Batch) -> Outputs:
        assert batch["attention_mask"].all()
        seen.append(batch["input_ids"].shape)
        return run(batch)

    assert 0 <= exam.score(watched).value <= 1
    assert len(set(seen)) == 2
    assert {rows for rows, _ in seen} == {1}
    examples = [Example(id=text, texts=("What is it?", text), label=()) for text in SENTENCES[:4]]
    inputs = make_inputs(TASKS["squad"], examples, source.tokenizer, source.input_names, 96, is_train=False)
    collator = collator_of(source.tokenizer)
    ours, _ = predict(OneByOne(run, Kind.SPAN), Kind.SPAN, inputs.features, collator, None)
    theirs, _ = predict(source.model, Kind.SPAN, inputs.features, collator, None)
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)
