"""What a held-out figure will be at the planned end of a run, and how sure that is.

The clock is the schedule's: the sum of learning rates so far as a share of that of the whole run. With a rate that rises
linearly and falls linearly to 0 it runs slowly at the end, as runs do, and it is known to the end beforehand. (Tissue et
al. 2024, "Scaling law with learning rate annealing", take the same sum as a run's effective length; their second term is
left out, few points cannot tell it from the first.) On this clock s the figure is taken to follow

    y(s) = end + slope * (s^p - 1) / p        log s for p = 0

whose value at s = 1 is `end`. Every p of a grid is fitted by least squares and weighed by how well it fits (marginal
likelihood under flat priors on end and slope, a weak one on the noise) and by a prior on p; the forecast is the mixture of
their Student-t predictions of the evaluation at the end, so that it holds both the noise and what is not known of the bend.
tests/evaluation/report/test_forecast.py has how often the ends of real curves have fallen into the ranges.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

LEAST_POINTS = 4
"""Evaluations after the warm-up, fewer say nothing of the bend."""
SHARE = 0.8
"""Of ends that should fall into the range."""
_EXPONENTS = np.linspace(-1.0, 2.0, 31)
_EXPONENT_MEAN, _EXPONENT_SPREAD = 0.5, 0.4
_NOISE_WEIGHT = 3.0  # how many residuals the noise expected beforehand counts for
_PAIRED = 0.4  # evaluations share sequences and masks: their noise is about this part of that of separate samples

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """The figure of the evaluation at the planned end."""

    low: float
    middle: float
    high: float
    """Median, and the range into which `SHARE` of ends should fall."""
    points: int
    """Evaluations that it rests on."""

    def scaled(self, factor: float) -> "Forecast":
        return Forecast(low=self.low * factor, middle=self.middle * factor, high=self.high * factor, points=self.points)


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """Linear warm-up from 0 and linear decay to 0."""

    num_updates: int
    warmup_share: float

    @property
    def warmup(self) -> float:
        return self.warmup_share * self.num_updates

    def clock(self, updates: Sequence[float]) -> Floats:
        """Sum of learning rates until the end of each update, as a share of the whole run's."""
        rising, whole = self.warmup, float(self.num_updates)
        at = np.asarray(updates, dtype=np.float64)
        decay = max(whole - rising, 1e-9)
        up = at**2 / max(2 * rising, 1e-9)
        down = rising / 2 + decay / 2 * (1 - ((whole - at) / decay) ** 2)
        area: Floats = np.where(at < rising, up, down) / (whole / 2)
        return area


def accuracy_noise(accuracy: float, num_masked: float) -> float:
    """Standard deviation to expect of a held-out accuracy along a run, whose evaluations share sequences and masks."""
    return _PAIRED * math.sqrt(max(accuracy * (1 - accuracy), 1e-6) / max(num_masked, 1.0))


def forecast(updates: Sequence[float], values: Sequence[float], schedule: Schedule, noise: float) -> Forecast | None:
    """From finite values after some updates; None while there are fewer than `LEAST_POINTS` after the warm-up.

    `noise`: the standard deviation of a value that is expected beforehand.
    """
    kept = [(u, v) for u, v in zip(updates, values, strict=True) if u > schedule.warmup and math.isfinite(v)]
    if len(kept) < LEAST_POINTS:
        return None
    clock = schedule.clock([u for u, _ in kept])
    y = np.array([v for _, v in kept])
    weights, middles, spreads, degrees = _mixture(clock, y, noise)
    low, middle, high = (
        _quantile(share, weights, middles, spreads, degrees) for share in ((1 - SHARE) / 2, 0.5, (1 + SHARE) / 2)
    )
    return Forecast(low=low, middle=middle, high=high, points=len(kept))


def _mixture(clock: Floats, y: Floats, noise: float) -> tuple[Floats, Floats, Floats, float]:
    """For every exponent: weight, median and scale of the predicted end; and the degrees of freedom."""
    n = len(y)
    degrees = _NOISE_WEIGHT + n - 2
    scores, middles, spreads = [], [], []
    for p in _EXPONENTS:
        x = np.log(clock) if abs(p) < 1e-9 else (clock**p - 1) / p
        centre, width = x.mean(), x.std()
        x, end = (
            (x - centre) / width,
            -centre / width,
        )  # in these units a flat prior on the slope means the same for all p
        slope = (x * (y - y.mean())).mean()
        squares = _NOISE_WEIGHT * noise**2 + ((y - y.mean() - slope * x) ** 2).sum()
        scores.append(-degrees / 2 * math.log(squares) - ((p - _EXPONENT_MEAN) / _EXPONENT_SPREAD) ** 2 / 2)
        middles.append(y.mean() + slope * end)
        spreads.append(math.sqrt(squares / degrees * (1 + 1 / n + end**2 / n)))
    weights = np.exp(np.array(scores) - max(scores))
    return weights / weights.sum(), np.array(middles), np.array(spreads), degrees


def _quantile(share: float, weights: Floats, middles: Floats, spreads: Floats, degrees: float) -> float:
    """By bisection: no formula for a mixture."""
    low, high = float((middles - 100 * spreads).min()), float((middles + 100 * spreads).max())
    for _ in range(100):
        middle = (low + high) / 2
        if (weights * stats.t.cdf((middle - middles) / spreads, degrees)).sum() < share:
            low = middle
        else:
            high = middle
    return (low + high) / 2
