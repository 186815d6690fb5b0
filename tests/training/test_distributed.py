"""Which rank a process is, whatever started it."""

import pytest

from training.distributed import describe_group


def described(**variables: str) -> tuple[str, str, str, str]:
    environment = dict(variables)
    describe_group(environment)
    return tuple(environment[name] for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR"))  # type: ignore[return-value]


def test_alone_without_a_launcher() -> None:
    environment: dict[str, str] = {}
    describe_group(environment)
    assert (environment["RANK"], environment["WORLD_SIZE"], environment["MASTER_ADDR"]) == ("0", "1", "127.0.0.1")
    assert 1024 < int(environment["MASTER_PORT"]) < 65536


def test_srun_and_mpirun_tasks_are_ranks() -> None:
    slurm = {"SLURM_PROCID": "5", "SLURM_NTASKS": "8", "SLURM_LOCALID": "1", "MASTER_ADDR": "n0"}
    assert described(**slurm) == ("5", "8", "1", "n0")
    mpi = {"OMPI_COMM_WORLD_RANK": "3", "OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_LOCAL_RANK": "3"}
    assert described(**mpi, MASTER_ADDR="n0") == ("3", "4", "3", "n0")


def test_a_launcher_of_torch_inside_an_allocation_wins() -> None:
    inside = {"SLURM_PROCID": "0", "SLURM_NTASKS": "8", "SLURM_LOCALID": "0"}
    own = {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "MASTER_ADDR": "127.0.0.1"}
    assert described(**inside, **own) == ("1", "2", "1", "127.0.0.1")


def test_an_allocation_without_tasks_is_one_process() -> None:
    assert described(SLURM_NTASKS="8") == ("0", "1", "0", "127.0.0.1")


def test_many_tasks_without_a_meeting_point_are_refused() -> None:
    with pytest.raises(SystemExit, match="MASTER_ADDR is not set"):
        described(SLURM_PROCID="1", SLURM_NTASKS="2", SLURM_LOCALID="1")
