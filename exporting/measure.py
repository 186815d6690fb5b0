"""What each variant is worth: its accuracy and its speed, beside the fp32 PyTorch model and the teacher."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import nn

from evaluation.speed_figures import Figure
from evaluation.speed_models import LoadedModel, load
from exporting.config import ExportConfig
from exporting.hugging_face import runner
from exporting.measure_scores import Examination, Score, examination
from exporting.measure_speed import AsModule, time_models
from exporting.source import Source
from exporting.texts import encode, golden_texts
from exporting.variant import TEACHER, Figures, Variant
from finetuning.starts import load_task_model, load_tokenizer
from model.hub import resolve_folder

TIMED_TEXTS = 48
"""Inputs that speed is measured on; of the lengths that those of --data have."""


def measure(variants: Sequence[Variant], source: Source, config: ExportConfig, folder: Path) -> dict[str, Figures]:
    """By `Variant.name`, and `TEACHER`. `folder` is the export's. The first variant is what others are compared with.

    Errors: those of reading --data and --teacher.
    """
    teacher = load(str(resolve_folder(config.teacher))) if config.teacher else None
    exam = examination(source, config.data, config.examples) if config.data else None
    scores: dict[str, Score] = {}
    if exam is not None:
        scores = {variant.name: exam.score(variant.load(folder, 0)) for variant in variants}
        if teacher is not None and (score := _teacher_score(teacher, exam, source)) is not None:
            scores[TEACHER] = score
    speeds = _speeds(variants, source, config.data, folder, teacher)
    found = {name: _figures(name, speeds, scores, exam, variants[0].name) for name in speeds}
    for name, figures in found.items():
        _say(name, figures, scores.get(name))
    return found


def _teacher_score(teacher: LoadedModel, exam: Examination, source: Source) -> Score | None:
    """None, and why, where it does not do what the student does."""
    folder = Path(teacher.source)
    try:
        module: nn.Module = teacher.module
        if source.task is not None:
            module = load_task_model(folder, source.task)
        elif not type(module).__name__.endswith("ForMaskedLM"):
            raise ValueError(f"{folder} is no masked language model")
        if load_tokenizer(folder).get_vocab() != source.tokenizer.get_vocab():
            raise ValueError(f"{folder} has another vocabulary")
    except ValueError as error:
        print(f"the teacher's accuracy is not measured: {error}", flush=True)
        return None
    return exam.score(runner(module))


def _speeds(
    variants: Sequence[Variant], source: Source, data: str, folder: Path, teacher: LoadedModel | None
) -> Mapping[str, Figure]:
    texts, _ = golden_texts(source, data, TIMED_TEXTS)
    ids = [encode(source, text)["input_ids"][0].tolist() for text in texts]
    models: dict[str, nn.Module] = {}
    if teacher is not None:
        if teacher.config.vocab_size <= max(map(max, ids)):
            raise ValueError(
                f"--teacher {teacher.source} has {teacher.config.vocab_size:,} tokens, the student has more"
            )
        ids = [row[: teacher.config.max_positions] for row in ids]
        models[TEACHER] = teacher.module
    threads = torch.get_num_threads()
    try:
        for variant in variants:
            models[variant.name] = AsModule(variant.load(folder, 1), source.input_names)
        return time_models(models, ids)
    finally:
        torch.set_num_threads(threads)  # loading the PyTorch model for one thread sets those of the process


def _figures(
    name: str, speeds: Mapping[str, Figure], scores: Mapping[str, Score], exam: Examination | None, reference: str
) -> Figures:
    speed, score = speeds[name], scores.get(name)
    value = score.value if score is not None else math.nan
    return Figures(
        metric=exam.metric if exam is not None and score is not None else "",
        score=value,
        drop=100 * (scores[reference].value - value) if score is not None else math.nan,
        examples=exam.examples if exam is not None and score is not None else 0,
        latency_ms=speed.median,
        speedup=speed.speed_up if TEACHER in speeds else math.nan,
    )


def _say(name: str, figures: Figures, score: Score | None) -> None:
    parts = [f"{figures.latency_ms:.2f} ms an input"]
    if not math.isnan(figures.speedup):
        parts.append(f"{figures.speedup:.2f} times as fast as the teacher")
    if score is not None:
        parts.append(f"{figures.metric} {100 * figures.score:.2f} on {figures.examples:,} examples")
        parts += [f"{score.loss:.4f} nats for each masked word"] if not math.isnan(score.loss) else []
    print(f"{name}: {', '.join(parts)}", flush=True)
