"""What a held-out figure will be at the planned end of a run, and how sure that is.

Updates count by what the schedule lets them change: the clock is the sum of learning rates so far as a share of the whole
run's, which with a rate that falls linearly to 0 slows down at the end, as runs do. (Tissue et al. 2024, "Scaling law with
learning rate annealing", measure a run's length likewise.) But it stands still where a falling rate itself still improves
the figure, so clocks with 0, 15 and 30% of the plain count of updates in them are tried. On a clock s the figure follows

    y(s) = end + slope * (s^p - 1) / p        log s for p = 0

whose value at s = 1 is `end`. Every clock and every p of a grid is fitted by least squares and weighed by how well it fits
(marginal likelihood under flat priors on end and slope, a weak one on the noise) and by a prior on p; the forecast is the
mixture of their Student-t predictions of the evaluation at the end, so that its range has in it the noise and what is not
known of the bend. tests/evaluation/report/test_forecast.py has how often the ends of real curves fall into it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import stdtr

LEAST_POINTS = 4
"""Evaluations after the warm-up, fewer say nothing of the bend."""
SHARE = 0.8
"""Of ends that should fall into the range."""
_EXPONENTS = np.linspace(-1.0, 2.0, 31)
_EXPONENT_MEAN, _EXPONENT_SPREAD = 0.25, 0.4
_SHARES_OF_UPDATES = (0.0, 0.15, 0.3)
_NOISE_WEIGHT = 3.0  # how many residuals the noise expected beforehand counts for
_PAIRED = 0.5  # evaluations share sequences and masks: their noise is about this part of that of separate samples

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

    def clock(self, updates: Sequence[float], share_of_updates: float) -> Floats:
        """What has passed at the end of each update, 1 at the end of the run: the sum of learning rates, and a share of the
        plain count of updates."""
        rising, whole = self.warmup, float(self.num_updates)
        at = np.asarray(updates, dtype=np.float64)
        decay = max(whole - rising, 1e-9)
        up = at**2 / max(2 * rising, 1e-9)
        down = rising / 2 + decay / 2 * (1 - ((whole - at) / decay) ** 2)
        area: Floats = np.where(at < rising, up, down) / (whole / 2)
        return (1 - share_of_updates) * area + share_of_updates * at / whole


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
    y = np.array([v for _, v in kept])
    fits = [
        _fit(schedule.clock([u for u, _ in kept], share), y, float(p), noise)
        for share in _SHARES_OF_UPDATES
        for p in _EXPONENTS
    ]
    scores, middles, spreads = (np.array(column) for column in zip(*fits, strict=True))
    weights = np.exp(scores - scores.max())
    mixture = (weights / weights.sum(), middles, spreads, _degrees(len(y)))
    low, middle, high = (_quantile(part, *mixture) for part in ((1 - SHARE) / 2, 0.5, (1 + SHARE) / 2))
    return Forecast(low=low, middle=middle, high=high, points=len(kept))


def _degrees(num_values: int) -> float:
    return _NOISE_WEIGHT + num_values - 2


def _fit(clock: Floats, y: Floats, p: float, noise: float) -> tuple[float, float, float]:
    """Of one clock and exponent: log weight, median and scale of the predicted end."""
    n, degrees = len(y), _degrees(len(y))
    x = np.log(clock) if abs(p) < 1e-9 else (clock**p - 1) / p
    centre, width = x.mean(), x.std()
    x, end = (x - centre) / width, -centre / width  # in these units a flat prior on the slope is the same for every p
    slope = (x * (y - y.mean())).mean()
    squares = _NOISE_WEIGHT * noise**2 + ((y - y.mean() - slope * x) ** 2).sum()
    score = -degrees / 2 * math.log(squares) - ((p - _EXPONENT_MEAN) / _EXPONENT_SPREAD) ** 2 / 2
    return score, y.mean() + slope * end, math.sqrt(squares / degrees * (1 + 1 / n + end**2 / n))


def _quantile(share: float, weights: Floats, middles: Floats, spreads: Floats, degrees: float) -> float:
    """By bisection: no formula for a mixture."""
    low, high = float((middles - 100 * spreads).min()), float((middles + 100 * spreads).max())
    for _ in range(50):
        middle = (low + high) / 2
        if (weights * stdtr(degrees, (middle - middles) / spreads)).sum() < share:
            low = middle
        else:
            high = middle
    return (low + high) / 2
