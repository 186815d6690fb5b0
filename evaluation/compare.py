"""Teacher and students side by side on held-out text: one table, figures and speed measured in one run.

python -m evaluation.compare --teacher runs/teacher/student --students distilled=runs/a/student --data corpus/train-heldout
"""

import sys
from dataclasses import dataclass

from command_line import parse


@dataclass(frozen=True, kw_only=True)
class CompareConfig:
    """What to compare, and on which text."""

    teacher: str
    """Folder or hub id of the teacher."""
    students: tuple[str, ...]
    """Folders of its students, each as NAME=FOLDER or FOLDER."""
    data: str
    """Prefix of a prepared held-out corpus."""
    max_length: int = 128
    """Longest sequence in tokens."""
    sequences: int = 512
    """Sequences to score, spread evenly over the corpus, with the same masks for everybody."""
    sequences_per_batch: int = 16
    """Sequences scored at a time."""
    mask_probability: float = 0.15
    """Share of a sequence's tokens to predict."""
    mask_smoothing: float = 0.7
    """As in training: 0 masks uniformly, above 0 rare tokens more often."""


if __name__ == "__main__":  # before the heavy imports, so that --help answers at once
    CONFIG = parse(CompareConfig, sys.argv[1:], __doc__ or "")

import statistics
import time

import torch

from data.batching import Batch, Corpus, FixedBatches, fixed_batches
from data.tokenizer import vocabulary_fingerprint
from evaluation.heldout import evaluate
from evaluation.sections import named
from model.attention import choose_attention
from model.bert import MaskedLanguageModel
from model.hub import load_model, resolve_folder
from model.kernels.choice import Kernels

SPEED_ROUNDS = 5
COLUMNS = ("parameters", "MLM loss", "perplexity", "accuracy", "KL to teacher", "top-1 agreement", "sentences/s")


def compare(config: CompareConfig) -> dict[str, dict[str, float]]:
    """Figures by model name, the teacher's first. Errors: ValueError or OSError for what does not fit together."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    corpus = Corpus.open(config.data, max_length=config.max_length)
    batches = fixed_batches(
        corpus,
        num_sequences=config.sequences,
        sequences_per_batch=config.sequences_per_batch,
        seed=0,
        rank=0,
        num_ranks=1,
        mask_probability=config.mask_probability,
        mask_smoothing=config.mask_smoothing,
    )
    models = {"teacher": load(config.teacher, corpus, device)}
    for student in config.students:
        name, folder = named(student)
        if name in models:
            raise ValueError(f"--students {student}: there is a {name!r} already. Give each its own name: NAME=FOLDER")
        models[name] = load(folder, corpus, device)
    figures = {}
    for name, model in models.items():
        figures[name] = evaluate(
            model, models["teacher"], batches, temperature=1.0, device=device, reduce=lambda sums: sums
        )
        figures[name]["parameters"] = model.config.num_parameters
    for name, speed in sentences_per_second(models, batches, device).items():
        figures[name]["sentences_per_second"] = speed
    return figures


def load(name: str, corpus: Corpus, device: torch.device) -> MaskedLanguageModel:
    folder = resolve_folder(name)
    known = vocabulary_fingerprint(str(folder))
    if known is not None and known != corpus.fingerprint:
        raise ValueError(
            f"{name} has another vocabulary than {corpus.dataset.prefix}: prepare the text with its tokenizer"
        )
    attention, _ = choose_attention("auto", device, torch.float32, 0.0)
    return load_model(folder, Kernels(attention=attention)).to(device)


@torch.no_grad()
def sentences_per_second(
    models: dict[str, MaskedLanguageModel], batches: FixedBatches, device: torch.device
) -> dict[str, float]:
    """Encoder throughput in fp32; models take turns, so that a noisy machine is noisy for all. Median of rounds."""
    some: list[Batch] = [batch.to(device) for batch in batches.batches[:: max(1, len(batches) // 4)]]
    count = sum(len(batch.sequence_ids) for batch in some)
    seconds: dict[str, list[float]] = {name: [] for name in models}
    for _ in range(SPEED_ROUNDS + 1):
        for name, model in models.items():
            started = time.perf_counter()
            for batch in some:
                model.encoder(batch.token_ids, batch.position_ids, batch.cu_seqlens, batch.max_seqlen)
            if device.type == "cuda":
                torch.cuda.synchronize()
            seconds[name].append(time.perf_counter() - started)
    return {name: count / statistics.median(times[1:]) for name, times in seconds.items()}  # the first warms up


def as_table(figures: dict[str, dict[str, float]]) -> str:
    """Markdown, one row a model."""
    rows = [f"| model | {' | '.join(COLUMNS)} |", "|---" * (len(COLUMNS) + 1) + "|"]
    for name, f in figures.items():
        cells = (
            f"{f['parameters'] / 1e6:.2f} M",
            f"{f['eval_mlm_loss']:.3f}",
            f"{f['eval_perplexity']:.1f}",
            f"{f['eval_mlm_accuracy']:.1%}",
            f"{f['eval_distillation']:.4f}",
            f"{f['eval_agreement']:.1%}",
            f"{f['sentences_per_second']:.0f}",
        )
        rows.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(rows)


def main(config: CompareConfig) -> int:
    try:
        figures = compare(config)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(as_table(figures))
    return 0


if __name__ == "__main__":
    sys.exit(main(CONFIG))
