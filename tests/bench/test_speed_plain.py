"""evaluation.speed beside a plain loop: both sides measure the same models on the same texts."""

import sys

from tests.conftest import Toy
from tests.launch import run


def test_both_sides_of_two_folders_are_in_one_table(toy: Toy) -> None:
    models = [f"a={toy.teacher}", f"b={toy.teacher}"]
    command = [sys.executable, "-m", "bench.speed_plain", "--sentences", "12", "--rounds", "2", "--models", *models]
    result = run(command)
    assert result.returncode == 0, result.stdout
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in result.stdout.splitlines() if line[:1] == "|"]
    assert [row[0] for row in rows[2:]] == ["a", "b", "b, times as fast"]
    for row in rows[2:4]:
        ours, plain, ratio = float(row[1]), float(row[2]), float(row[4])
        assert 0 < ours < 1000
        assert abs(ours / plain - ratio) < 0.02 * ratio + 0.01
    assert 0.3 < float(rows[4][1]) < 3  # the same model twice
