"""Seconds of batches -> the figures of the table: medians over rounds, their spread, and ratios to the first model."""

from dataclasses import dataclass
from statistics import median

import numpy as np

from evaluation.speed_timing import Seconds, Setting


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One model in one setting. Latency in ms a text at batch 1, throughput in texts/s at larger batches."""

    median: float
    p10: float
    p90: float
    """Over texts (latency) or batches (throughput) of a round; each of the three is the median over rounds."""
    lowest: float
    highest: float
    """Of the rounds' medians."""
    speed_up: float
    """Over the first model: the median over rounds of the ratio of speeds."""
    pass_seconds: float
    """One pass over all texts of the file, from those measured."""


def summarize(seconds: Seconds, num_texts: int, total: int) -> dict[Setting, dict[str, Figure]]:
    """Seconds of batches -> figures; the first model of each setting is what the others are compared with."""
    figures: dict[Setting, dict[str, Figure]] = {}
    for way, by_model in seconds.items():
        per_round = {name: [_speeds(way, took, num_texts) for took in rounds] for name, rounds in by_model.items()}
        first = next(iter(per_round.values()))
        figures[way] = {}
        for name, rounds in per_round.items():
            ratios = [mine[0] / theirs[0] for mine, theirs in zip(rounds, first, strict=True)]
            middle, p10, p90 = (median(values) for values in zip(*rounds, strict=True))
            speed_up = median(1 / ratio if way.batch_size == 1 else ratio for ratio in ratios)
            figures[way][name] = Figure(
                median=middle,
                p10=p10,
                p90=p90,
                lowest=min(r[0] for r in rounds),
                highest=max(r[0] for r in rounds),
                speed_up=speed_up,
                pass_seconds=median(sum(took) for took in by_model[name]) * total / num_texts,
            )
    return figures


def _speeds(way: Setting, took: list[float], num_texts: int) -> tuple[float, float, float]:
    """Of one round: what stands for it, and the 10th and 90th percentile."""
    if way.batch_size == 1:
        p10, middle, p90 = np.percentile(took, (10, 50, 90)) * 1e3
        return float(middle), float(p10), float(p90)
    sizes = [min(way.batch_size, num_texts - start) for start in range(0, num_texts, way.batch_size)]
    p10, p90 = np.percentile([size / s for size, s in zip(sizes, took, strict=True)], (10, 90))
    return num_texts / sum(took), float(p10), float(p90)
