"""Which rank a process is and where the ranks meet, whatever started it."""

import json
import os
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Toy
from tests.launch import ds_config, metrics, run, torchrun
from training.rendezvous import DERIVED_PORTS, derived_port, describe_group, first_node, own_address, tasks_per_node

GROUP = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
MPIRUN = ["mpirun", "-np", 2, "--oversubscribe", "--allow-run-as-root"]
STEP = {
    "SLURM_JOB_ID": "1234",
    "SLURM_STEP_ID": "0",
    "SLURM_PROCID": "5",
    "SLURM_STEP_NUM_TASKS": "7",
    "SLURM_LOCALID": "1",
    "SLURM_NODEID": "1",
    "SLURM_STEP_TASKS_PER_NODE": "4,3",
    "SLURM_STEP_NODELIST": "localhost,elsewhere",
}


def described(**variables: str) -> tuple[str, ...]:
    environment = dict(variables)
    describe_group(environment)
    return tuple(environment[name] for name in GROUP)


def test_alone_without_a_launcher() -> None:
    *group, port = described()
    assert group == ["0", "1", "0", "1", "127.0.0.1"]
    assert 1024 < int(port) < 65536


def test_tasks_of_srun_are_ranks_that_meet_on_their_first_node() -> None:
    port = str(derived_port(STEP))
    assert described(**STEP) == ("5", "7", "1", "3", "localhost", port)
    assert described(**STEP | {"SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0"}) == (
        *("0", "7", "0", "4", "localhost", port),
    )


def test_a_meeting_point_of_the_users_own_is_kept() -> None:
    own = {"MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "29999"}
    assert described(**STEP, **own)[-2:] == ("10.0.0.1", "29999")
    mpi = {f"OMPI_COMM_WORLD_{name}": value for name, value in zip(("RANK", "LOCAL_RANK"), "31", strict=True)}
    sizes = {"OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_LOCAL_SIZE": "2"}
    assert described(**mpi, **sizes, **own) == ("3", "4", "1", "2", "10.0.0.1", "29999")


def test_ranks_of_mpirun_inside_an_allocation_are_not_those_of_its_daemons() -> None:
    """mpirun starts one daemon a node by srun, whose variables every rank of that node inherits."""
    mpich = {"PMI_RANK": "6", "PMI_SIZE": "8", "MPI_LOCALRANKID": "2", "MPI_LOCALNRANKS": "4", "MASTER_ADDR": "n0"}
    assert described(**STEP, **mpich)[:5] == ("6", "8", "2", "4", "n0")


def test_a_launcher_of_torch_inside_an_allocation_wins() -> None:
    own = {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "n7"}
    assert described(**STEP, **own, MASTER_PORT="4000") == ("1", "2", "1", "2", "n7", "4000")


def test_a_batch_script_without_srun_is_one_process() -> None:
    batch = {"SLURM_PROCID": "0", "SLURM_NTASKS": "8", "SLURM_LOCALID": "0", "SLURM_JOB_ID": "7"}
    assert described(**batch)[:5] == ("0", "1", "0", "1", "127.0.0.1")


@pytest.mark.parametrize(
    ("compact", "first"),
    [
        ("n0", "n0"),
        ("n[0-1]", "n0"),
        ("gpu[03-07,11],login1", "gpu03"),
        ("login1,gpu[03-07,11]", "login1"),
        ("rack[2-4]n[08-11]-ib,rack9", "rack2n08-ib"),
    ],
)
def test_first_node_of_a_compact_list(compact: str, first: str) -> None:
    assert first_node(compact) == first


def test_tasks_of_a_compact_list() -> None:
    assert tasks_per_node("2(x3),1") == [2, 2, 2, 1]
    assert tasks_per_node("16") == [16]


def test_derived_ports_keep_jobs_steps_and_restarts_apart() -> None:
    ports = [
        derived_port({"SLURM_JOB_ID": str(job), "SLURM_STEP_ID": str(step), "SLURM_RESTART_COUNT": str(restart)})
        for job in range(90_000, 90_020)
        for step in range(3)
        for restart in range(4)
    ]
    assert len(set(ports)) == len(ports)
    assert set(ports) <= set(DERIVED_PORTS)
    ephemeral = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    assert max(DERIVED_PORTS) < ephemeral


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.socket() as other:
        other.bind(("", derived_port(STEP)))
        other.listen()
        yield derived_port(STEP)


def test_a_port_that_is_taken_is_refused_before_ranks_wait_for_a_stranger(taken_port: int) -> None:
    with pytest.raises(ValueError, match=f"port {taken_port}, derived .* is taken .* export MASTER_PORT"):
        described(**STEP | {"SLURM_PROCID": "0"})


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1"}, "error: RANK is set, MASTER_ADDR and MASTER_PORT not"),
        (
            STEP | {"SLURM_STEP_NODELIST": "no-such-node[1-2]", "PATH": ""},
            "rank 0's node, no-such-node1, does not resolve",
        ),
    ],
)
def test_ranks_that_cannot_meet_end_with_one_message(toy: Toy, variables: dict[str, str], message: str) -> None:
    command = [sys.executable, "train.py", "--ds_config", "ds_configs/zero2_cpu.json", "--data", toy.train]
    result = run(command, **variables | {"LOCAL_RANK": "0", "SLURM_LOCALID": "0"})
    assert result.returncode == 2
    assert result.stdout.count("error") == 1
    assert message in result.stdout
    assert "Traceback" not in result.stdout


def test_own_address_is_one_that_peers_can_reach() -> None:
    with socket.socket() as server:
        server.bind((own_address(), 0))
        server.listen()
        with socket.create_connection(server.getsockname(), timeout=5) as client:
            assert client.getpeername() == server.getsockname()


def test_ranks_of_mpirun_meet_without_being_told_where() -> None:
    show = "import json, os; from training.rendezvous import describe_group as d; d(os.environ); "
    show += f"print(json.dumps([os.environ[n] for n in {GROUP}]) + chr(10), end='', flush=True)"
    result = run([*MPIRUN, sys.executable, "-c", show])
    assert result.returncode == 0, result.stdout
    first, second = sorted(json.loads(line) for line in result.stdout.splitlines() if line.startswith("["))
    assert first[:5] == ["0", "2", "0", "2", "127.0.0.1"]
    assert second == ["1", "2", "1", "2", *first[4:]]


def test_a_rank_0_that_never_comes_is_not_waited_for_without_end() -> None:
    code = "import os, time; from training.rendezvous import describe_group as d\n"
    code += "time.sleep(60) if os.environ['OMPI_COMM_WORLD_RANK'] == '0' else d(os.environ, patience=2.0)"
    started = time.monotonic()
    result = run([*MPIRUN, sys.executable, "-c", code])
    assert result.returncode == 1, result.stdout
    assert "TimeoutError: rank 0 has not said for 2 s (--hang_timeout) where to meet" in result.stdout
    assert time.monotonic() - started < 30


def test_ranks_that_mpi_does_not_connect_say_so() -> None:
    """As where mpi4py loads another MPI than mpirun's: every rank is alone in it."""
    alone = {k: v for k, v in os.environ.items() if k != "MASTER_ADDR"}
    names = {"PMI_RANK": "0", "PMI_SIZE": "2", "MPI_LOCALRANKID": "0", "MPI_LOCALNRANKS": "2"}
    with pytest.raises(ValueError, match="mpi4py sees 1 of 2 ranks"):
        describe_group(alone | names)


@pytest.mark.slow
def test_mpirun_trains_as_torchrun_does_and_passes_the_exit_code_on(toy: Toy, tmp_path: Path) -> None:
    flags = ["train.py", "--ds_config", ds_config(tmp_path / "ds.json"), "--data", toy.train, "--teacher", toy.teacher]
    flags += ["--max_updates", 3, "--log_every", 1, "--max_length", 40, "--no_check_teacher", "--output"]
    result = run([*MPIRUN, sys.executable, *flags, tmp_path / "mpirun"])
    assert result.returncode == 0, result.stdout[-4000:]
    assert torchrun(2, *flags, tmp_path / "torchrun").returncode == 0
    got, expected = ([line["loss"] for line in metrics(tmp_path / name)] for name in ("mpirun", "torchrun"))
    assert got == expected
    assert len(got) == 3
    again = run([*MPIRUN, sys.executable, *flags, tmp_path / "mpirun"])
    assert again.returncode == 2, "a run folder that is taken is bad input"
