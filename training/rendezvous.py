"""Which rank this process is and where the ranks meet, from the variables of whatever launcher started it.

Standard library alone: under mpirun this file is also run as a program of its own, see `_meet_over_mpi`.
"""

import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import MutableMapping
from typing import Any, NamedTuple

DERIVED_PORTS = range(15_000, 25_000)
"""Below Linux's ephemeral ports (32768 and up), which anything may hold, and below torch's 29500."""


class Names(NamedTuple):
    """The variables in which a launcher numbers its tasks."""

    rank: str
    num_ranks: str
    local_rank: str
    ranks_here: str


OPEN_MPI = Names(
    "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_SIZE"
)
MPICH = Names("PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS")  # Intel MPI's too
SLURM = Names("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID", "SLURM_STEP_TASKS_PER_NODE")


def describe_group(environment: MutableMapping[str, str], patience: float = 300.0) -> None:
    """Fill in RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE, MASTER_ADDR and MASTER_PORT for torch and DeepSpeed.

    torchrun and deepspeed set RANK and all that follows from it; what they, or the user, set is left alone. srun and mpirun
    number their tasks under names of their own; without this, N tasks would be N separate runs.

    Raises:
        ValueError: tasks that cannot be numbered, or that do not know where to meet.
        TimeoutError: rank 0 has not said for `patience` seconds where they meet.
        ChildProcessError: the launcher is killing the ranks as they ask.
    """
    if "RANK" not in environment:
        # mpirun first: inside an allocation its ranks also carry the variables of the srun that started its daemons.
        if OPEN_MPI.rank in environment:
            _describe_mpi(environment, OPEN_MPI, patience)
        elif MPICH.rank in environment and MPICH.local_rank in environment:
            _describe_mpi(environment, MPICH, patience)
        elif (
            "SLURM_STEP_ID" in environment and SLURM.rank in environment
        ):  # a batch script has a SLURM_PROCID, but no step
            _describe_slurm(environment)
    for name, alone in (("RANK", "0"), ("LOCAL_RANK", "0"), ("WORLD_SIZE", "1")):
        environment.setdefault(name, alone)
    if int(environment["WORLD_SIZE"]) > 1:
        missing = [name for name in ("MASTER_ADDR", "MASTER_PORT") if name not in environment]
        if missing:
            raise ValueError(
                f"RANK is set, {' and '.join(missing)} not: export the address of rank 0's node and a free port, the same "
                "for all ranks, or unset RANK and start with torchrun, deepspeed, srun or mpirun"
            )
    environment.setdefault("LOCAL_WORLD_SIZE", "1")
    environment.setdefault("MASTER_ADDR", "127.0.0.1")
    environment.setdefault("MASTER_PORT", str(free_port()))


def _describe_mpi(environment: MutableMapping[str, str], names: Names, patience: float) -> None:
    _number(environment, names, int(environment[names.ranks_here]))
    if int(environment["WORLD_SIZE"]) > 1 and "MASTER_ADDR" not in environment:
        environment["MASTER_ADDR"], environment["MASTER_PORT"] = _ask_mpi(environment, patience)
    environment.setdefault("MASTER_PORT", "29500")


def _describe_slurm(environment: MutableMapping[str, str]) -> None:
    node = int(environment.get("SLURM_NODEID", "0"))
    _number(environment, SLURM, tasks_per_node(environment.get(SLURM.ranks_here, "1"))[node])
    if int(environment["WORLD_SIZE"]) == 1:
        return
    if "MASTER_PORT" not in environment:
        environment["MASTER_PORT"] = str(derived_port(environment))
        if environment["RANK"] == "0":
            _check_port(int(environment["MASTER_PORT"]))
    if "MASTER_ADDR" not in environment:
        nodes = environment.get("SLURM_STEP_NODELIST") or environment["SLURM_JOB_NODELIST"]
        environment["MASTER_ADDR"] = _node_address(first_node(nodes))


def _number(environment: MutableMapping[str, str], names: Names, ranks_here: int) -> None:
    environment["RANK"], environment["WORLD_SIZE"] = environment[names.rank], environment[names.num_ranks]
    environment["LOCAL_RANK"], environment["LOCAL_WORLD_SIZE"] = environment[names.local_rank], str(ranks_here)


def tasks_per_node(compact: str) -> list[int]:
    """SLURM's "2(x3),1" -> [2, 2, 2, 1]."""
    counts: list[int] = []
    for tasks, nodes in re.findall(r"(\d+)(?:\(x(\d+)\))?", compact):
        counts += [int(tasks)] * int(nodes or 1)
    return counts


def first_node(compact: str) -> str:
    """SLURM's "gpu[03-07,11]-ib,login1" -> "gpu03-ib": every bracket's first number, up to the first comma outside of one.

    Without `scontrol show hostnames`, which containers lack. srun puts rank 0 on the first node unless told otherwise.
    """
    first = re.match(r"(?:\[[^\]]*\]|[^,\[])+", compact)
    if first is None:
        raise ValueError(
            f"SLURM's node list {compact!r} cannot be read: export MASTER_ADDR, the address of rank 0's node"
        )
    return re.sub(r"\[(\w+)[^\]]*\]", r"\1", first.group())


def derived_port(environment: MutableMapping[str, str]) -> int:
    """The same for all tasks of a job step, another for a step beside it and after a requeue, when the last may linger."""
    job, step, restart = (
        int(environment.get(name) or 0) for name in ("SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_RESTART_COUNT")
    )
    # Jobs that run side by side have neighbouring numbers: far apart, so that their steps and restarts do not meet.
    return DERIVED_PORTS[(job * 101 + step * 11 + restart) % len(DERIVED_PORTS)]


def _check_port(port: int) -> None:
    """Rank 0's, before torch opens it: every rank would wait for a stranger, or end in a traceback."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # one closed a moment ago is free
        try:
            probe.bind(("", port))
        except OSError as error:
            raise ValueError(
                f"port {port}, derived from the job's number, is taken on {socket.gethostname()} ({error.strerror}): "
                f"export MASTER_PORT with another, for all ranks"
            ) from None


def _node_address(node: str) -> str:
    """The name itself where it resolves, else the address that SLURM has for it."""
    if _resolves(node):
        return node
    try:
        command = ["scontrol", "show", "node", "--oneliner", node]
        shown = subprocess.run(command, text=True, capture_output=True, timeout=60).stdout
    except (OSError, subprocess.TimeoutExpired):
        shown = ""
    address = re.search(r"\bNodeAddr=(\S+)", shown)
    if address and _resolves(address.group(1)):
        return address.group(1)
    raise ValueError(
        f"the name of rank 0's node, {node}, does not resolve, and `scontrol show node {node}` gives no address that does: "
        "export MASTER_ADDR, the address of that node"
    )


def _resolves(host: str) -> bool:
    try:
        socket.getaddrinfo(host, None)
    except OSError:
        return False
    return True


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _ask_mpi(environment: MutableMapping[str, str], patience: float) -> tuple[str, str]:
    """Rank 0's address and a free port there, from a child that speaks MPI in this rank's name.

    MPI_Init would leave its signal handlers (SIGBUS, SIGSEGV, SIGABRT, ...) and memory hooks behind in the process that
    trains; in a child they end with it, and mpirun still sees this process's own exit code.
    """
    command = [sys.executable, os.path.abspath(__file__)]
    try:  # open files are passed on: MPICH's mpirun talks to its ranks through one
        child = subprocess.run(
            command, env=dict(environment), close_fds=False, text=True, capture_output=True, timeout=patience
        )
        if child.returncode == 0:
            address, _, port = child.stdout.strip().rpartition(":")
            return address, port
        if child.returncode < 0:
            raise ChildProcessError(f"mpirun's ranks are being ended (signal {-child.returncode})")
        problem = child.stderr.strip().rpartition("\n")[2] or f"exit code {child.returncode}"
    except subprocess.TimeoutExpired:
        raise TimeoutError(f"rank 0 has not said for {patience:.0f} s (--hang_timeout) where to meet") from None
    raise ValueError(
        f"the ranks of this mpirun cannot agree where to meet ({problem}). Name rank 0's host yourself: "
        "mpirun -x MASTER_ADDR=... (MPICH: -genv MASTER_ADDR ...)"
    )


def _meet_over_mpi() -> None:
    """Rank 0 publishes where it waits; the others look it up; all print it.

    Published names travel with mpirun's own daemons: no message between ranks, which needs MPI's networks to be set up.
    """
    from mpi4py import MPI

    world, num_ranks = MPI.COMM_WORLD, int(os.environ["WORLD_SIZE"])
    if world.size != num_ranks:
        sys.exit(f"mpi4py sees {world.size} of {num_ranks} ranks: is its MPI that of mpirun?")
    name = f"distillery-{os.environ.get('PMIX_NAMESPACE', '')}"
    if world.rank == 0:
        here = int(os.environ["LOCAL_WORLD_SIZE"]) == num_ranks
        place = f"{'127.0.0.1' if here else own_address()}:{free_port()}"  # without blanks: MPICH cuts at one
        MPI.Publish_name(name, place)
    else:
        place = _look_up(MPI, name)
    print(place)


def _look_up(mpi: Any, name: str) -> str:
    while True:  # the parent ends this process when its patience does
        try:
            return mpi.Lookup_name(name)
        except mpi.Exception:  # rank 0 has not published it yet
            time.sleep(0.1)


def own_address() -> str:
    """By which other hosts reach this one: that of its name, or of the default route where the name means loopback."""
    try:
        address = socket.gethostbyname(socket.gethostname())
    except OSError:
        address = "127.0.0.1"
    if not address.startswith("127."):
        return address
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as route:
        route.connect(("198.51.100.1", 9))  # an address for documentation; connecting a datagram socket sends nothing
        return route.getsockname()[0]


def kernel_id() -> str:
    """Tells running kernels apart, whatever their hosts are called."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()


if __name__ == "__main__":
    _meet_over_mpi()
