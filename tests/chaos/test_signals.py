"""Every signal, at every point of a run, under every launcher."""

from pathlib import Path

import pytest

from tests.chaos.cells import MATRIX, Cell
from tests.chaos.conftest import Record
from tests.chaos.harness import Outcome, last_end, launch
from tests.chaos.proof import SAVES, Proof
from training.lifecycle import ExitCode

QUICK = {
    "SIGTERM to a rank, forward, torchrun",
    "SIGUSR1 to a rank, evaluation, deepspeed",
    "SIGTERM to the launcher, accumulation, deepspeed",
    "SIGKILL of a rank, save, torchrun",
    "SIGKILL of the launcher, accumulation, deepspeed",
    "SIGSTOP of a rank, forward, mpirun",
    "SIGKILL of a rank, start-up, mpirun",
}
"""One of each fault, phase and launcher; the others take an hour."""
SLOW = {
    "SIGUSR1 to a rank, evaluation, deepspeed",
    "SIGSTOP of a rank, forward, mpirun",
    "SIGTERM to the launcher, accumulation, deepspeed",
    "SIGKILL of the launcher, accumulation, deepspeed",
    "SIGKILL of a rank, start-up, mpirun",
    "SIGTERM to a rank, forward, torchrun",  # as test_recovery.py has it
}
"""Of those, the ones that wait longest."""


def marks(cell: Cell) -> list[pytest.MarkDecorator]:
    if cell.name not in QUICK:
        return [pytest.mark.matrix]
    return [pytest.mark.slow] if cell.name in SLOW else []


@pytest.mark.parametrize("cell", [pytest.param(cell, id=cell.name, marks=marks(cell)) for cell in MATRIX])
def test_nothing_is_lost(
    cell: Cell, proof: Proof, record: Record, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if cell.launcher == "srun":
        request.getfixturevalue("slurm")
    folder = tmp_path / "run"
    outcome = launch(cell.launcher, proof.flags(folder), tmp_path / "notes", cell.description())
    judge(cell, outcome)
    lost, end = proof.lost(folder), last_end(folder)
    assert end == "PREEMPTED" if cell.saves else end != "FINISHED", outcome.output[-3000:]
    assert lost <= (0 if end == "PREEMPTED" else 2 * SAVES), outcome.output[-3000:]
    if outcome.rank_codes.get(0) == ExitCode.HANG and end != "-":  # it had got as far as the journal
        assert end == "HANG"
    proved = proof.check(folder, cell.launcher)
    record(cell.name, f"{end or 'no end in the journal'}, {proved}", describe(outcome), lost)


def judge(cell: Cell, outcome: Outcome) -> None:
    """The fault happened, nobody took it for success, nothing hangs, nobody is left behind."""
    said = f"{cell.name}: {outcome}"
    assert outcome.has_fired, said
    assert outcome.launcher_code is not None, f"hangs: {said}"
    assert not outcome.orphans, said
    allowed = cell.codes()
    assert set(outcome.rank_codes.values()) <= allowed, f"{allowed} allowed: {said}"
    assert ExitCode.FINISHED not in outcome.rank_codes.values(), said
    if cell.signal == "SIGSTOP":
        assert ExitCode.HANG in outcome.rank_codes.values(), said
    assert outcome.launcher_code != 0, said


def describe(outcome: Outcome) -> str:
    ranks = ", ".join("killed" if code is None else str(code) for code in outcome.rank_codes.values())
    return f"{outcome.launcher_code} (ranks {ranks})"
