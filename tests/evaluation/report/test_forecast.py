"""Forecasts against curves whose end is known: made ones, and real ones cut short.

curves.json has two real runs of train.py, and 25 stand-ins made for this: a small network predicts a word-piece of Wikipedia
from its eight neighbours under AdamW with linear warm-up and decay, alone, and as a student of another from a random start
and from its teacher's weights, at two learning rates, two lengths and three seeds. The constants of forecast.py were chosen
on the stand-ins of 300 updates; those of 600 and 4,000 and the real runs were only measured.
"""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from evaluation.report.forecast import LEAST_POINTS, SHARE, Forecast, Schedule, accuracy_noise, forecast

CURVES = json.loads((Path(__file__).parent / "curves.json").read_text())


def test_clock_is_the_sum_of_learning_rates() -> None:
    """Against adding up the rates of 1,000 updates."""
    schedule = Schedule(num_updates=1000, warmup_share=0.05)
    rates = [min(u / 50, (1000 - u) / 950) for u in range(1000)]
    at = [10, 50, 51, 300, 999, 1000]
    expected = [sum(rates[:u]) / sum(rates) for u in at]
    assert schedule.clock(at, 0.0) == pytest.approx(expected, abs=2e-3)
    mixed = schedule.clock(at, 0.3)
    assert mixed == pytest.approx([0.7 * e + 0.3 * u / 1000 for e, u in zip(expected, at, strict=True)], abs=2e-3)


@pytest.mark.parametrize("warmup_share", [0.0, 1.0])
def test_clock_of_a_schedule_that_only_falls_or_only_rises(warmup_share: float) -> None:
    clock = Schedule(num_updates=100, warmup_share=warmup_share).clock(range(101), 0.0)
    assert (clock[0], clock[-1]) == pytest.approx((0.0, 1.0))
    assert (np.diff(clock) > 0).all()


@pytest.mark.parametrize("exponent", [-0.5, 0.25, 1.0])
def test_the_end_of_a_curve_without_noise_is_found(exponent: float) -> None:
    schedule = Schedule(num_updates=800, warmup_share=0.05)
    updates = list(range(80, 641, 80))
    values = 0.5 + 0.1 * (schedule.clock(updates, 0.15) ** exponent - 1) / exponent
    found = forecast(updates, values.tolist(), schedule, noise=1e-5)
    assert found is not None
    assert found.low < 0.5 < found.high
    assert found.middle == pytest.approx(0.5, abs=0.003)
    assert found.points == 8


def test_more_noise_means_a_wider_range_and_more_evaluations_a_narrower_one() -> None:
    schedule = Schedule(num_updates=800, warmup_share=0.05)
    updates = list(range(80, 641, 80))
    values = (0.5 + 0.1 * np.log(schedule.clock(updates, 0.15))).tolist()

    def width(count: int, noise: float) -> float:
        found = forecast(updates[:count], values[:count], schedule, noise)
        assert found is not None
        return found.high - found.low

    assert width(8, 0.001) < width(8, 0.01)
    assert width(8, 0.001) < width(5, 0.001)


def test_too_few_evaluations_are_no_ground_for_a_forecast() -> None:
    """Neither those of the warm-up nor those that are not finite count."""
    schedule = Schedule(num_updates=100, warmup_share=0.2)
    updates, values = [0, 10, 20, 30, 40, 50, 60], [0.0, 0.1, 0.2, 0.3, math.nan, 0.35, 0.4]
    assert LEAST_POINTS == 4
    assert forecast(updates, values, schedule, 0.01) is None
    assert forecast([*updates, 70], [*values, 0.42], schedule, 0.01) is not None


def test_ranges_hold_the_share_of_ends_that_they_say_where_the_noise_is_as_expected() -> None:
    """150 curves of random bends."""
    draw, schedule, hits = np.random.default_rng(0), Schedule(num_updates=1000, warmup_share=0.05), 0
    updates, noise = list(range(100, 701, 100)), 0.004
    for _ in range(150):
        p = draw.normal(0.25, 0.4)
        clock = schedule.clock([*updates, 1000], draw.choice([0.0, 0.15, 0.3]))
        values = 0.5 + draw.uniform(0.02, 0.1) * (clock**p - 1) / p + draw.normal(0, noise, len(clock))
        found = forecast(updates, values[:-1].tolist(), schedule, noise)
        assert found is not None
        hits += found.low <= values[-1] <= found.high
    assert hits / 150 == pytest.approx(SHARE, abs=0.08)


def backtest(curve: dict) -> list[tuple[float, Forecast, float]]:
    """(share of the run that is known, forecast, the end that came), for every cut."""
    schedule = Schedule(num_updates=curve["num_updates"], warmup_share=0.05)
    updates, values, found = curve["updates"], curve["accuracy"], []
    for count in range(LEAST_POINTS, len(values) - 1):
        noise = accuracy_noise(values[count - 1], curve["num_masked"])
        expected = forecast(updates[:count], values[:count], schedule, noise)
        assert expected is not None
        found.append((updates[count - 1] / curve["num_updates"], expected, values[-1]))
    return found


def test_ranges_hold_the_ends_of_real_curves() -> None:
    """Cuts of one curve are not independent, so the share is held to no more than it can say."""
    for kind in ("real", "stand-in", "600 updates"):
        cuts = [cut for curve in CURVES if kind in curve["name"] for cut in backtest(curve)]
        hits = [found.low <= end <= found.high for _, found, end in cuts]
        errors = np.array([found.middle / end - 1 for _, found, end in cuts])
        late = np.array([share >= 0.5 for share, _, _ in cuts])
        print(
            f"{kind}: {len(cuts)} cuts, {np.mean(hits):.0%} within; relative error {errors.mean():+.1%} on average, "
            f"{np.sqrt((errors**2).mean()):.1%} rms, {np.sqrt((errors[late] ** 2).mean()):.1%} rms from half of the run on"
        )
        assert 0.7 <= np.mean(hits) <= 0.95
        assert abs(errors.mean()) < 0.02
        assert np.sqrt((errors[late] ** 2).mean()) < 0.04


def test_retention_is_the_accuracy_in_units_of_the_teacher() -> None:
    found = Forecast(low=0.1, middle=0.12, high=0.15, points=5).scaled(1 / 0.2)
    assert (found.low, found.middle, found.high, found.points) == pytest.approx((0.5, 0.6, 0.75, 5))
