"""Can two ranks talk? Two real processes add up a tensor: over gloo on this host, over NCCL between its first two GPUs."""

import argparse
import socket
import subprocess
import sys

from launcher.checks.finding import Finding, failed, ok

ELEMENTS = 1_000_000
TIMEOUT = 60.0


def check_ranks(backend: str, timeout: float = TIMEOUT) -> Finding:
    """Both processes are gone when it returns, whatever happened."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "launcher.checks.talk", "--backend", backend, "--port", str(port), "--rank"]
    ranks = [
        subprocess.Popen([*command, str(rank)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        for rank in range(2)
    ]
    why = "training ends or hangs at its first all-reduce"
    action = "see the network interfaces (GLOO_SOCKET_IFNAME, NCCL_SOCKET_IFNAME, NCCL_DEBUG=INFO) and firewall"
    try:
        messages = [process.communicate(timeout=timeout)[1] for process in ranks]
    except subprocess.TimeoutExpired:
        return failed(f"two ranks did not add up a tensor over {backend} within {timeout:.0f} s", why, action)
    finally:
        for process in ranks:
            process.kill()
            process.wait()
    for process, message in zip(ranks, messages, strict=True):
        if process.returncode:
            reason = (message.strip().splitlines() or [f"exit code {process.returncode}"])[-1]
            return failed(f"two ranks cannot talk over {backend}: {reason}", why, action)
    return ok(f"two ranks added up {ELEMENTS * 4 / 1e6:.0f} MB over {backend}")


def all_reduce(backend: str, port: int, rank: int) -> None:
    """One of the two ranks.

    Raises:
        RuntimeError: no connection, or a wrong sum.
    """
    from datetime import timedelta

    import torch
    import torch.distributed as dist

    device = torch.device("cuda", rank) if backend == "nccl" else torch.device("cpu")
    address = f"tcp://127.0.0.1:{port}"
    dist.init_process_group(backend, init_method=address, rank=rank, world_size=2, timeout=timedelta(seconds=TIMEOUT))
    values = torch.full((ELEMENTS,), rank + 1.0, device=device)
    dist.all_reduce(values)
    if not bool((values == 3.0).all()):
        raise RuntimeError(f"1 + 2 gave {values.unique().tolist()[:5]}")
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--backend", required=True)
    for name in ("--port", "--rank"):
        parser.add_argument(name, type=int, required=True)
    given = parser.parse_args()
    all_reduce(given.backend, given.port, given.rank)
