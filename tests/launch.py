"""Starting the real commands, on real ranks."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parent.parent


def ds_config(path: Path, **changes: Any) -> Path:
    """A DeepSpeed JSON: ds_configs/zero2_cpu.json in fp32 with small batches, and `changes` (None removes a key)."""
    content = json.loads((ROOT / "ds_configs/zero2_cpu.json").read_text())
    content |= {"bf16": {"enabled": False}, "train_batch_size": 16, "train_micro_batch_size_per_gpu": 4, **changes}
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))
    return path


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def environment() -> dict[str, str]:
    """This process's, with the virtual environment's commands first and no launcher's variables."""
    inherited = {k: v for k, v in os.environ.items() if k not in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_PORT")}
    return inherited | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}


def run(command: list[object], timeout: float = 200, **more: Any) -> subprocess.CompletedProcess[str]:
    """A command in the project's root; its output is captured together."""
    with start(command, **more) as process:
        try:
            output, _ = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
    return subprocess.CompletedProcess(process.args, process.returncode, output)


def start(command: list[object], **more: str) -> subprocess.Popen[str]:
    """A command in the project's root that goes on; its output comes together, through `stdout`."""
    return subprocess.Popen(
        [str(part) for part in command],
        cwd=ROOT,
        env=environment() | more,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def torchrun_command(num_ranks: int, *arguments: object) -> list[object]:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", num_ranks]
    return [*launcher, "--master_port", free_port(), *arguments]


def torchrun(num_ranks: int, *arguments: object, timeout: float = 200) -> subprocess.CompletedProcess[str]:
    return run(torchrun_command(num_ranks, *arguments), timeout)


def kill_when(command: list[object], text: str) -> None:
    """Start a command and SIGKILL it with all its descendants as soon as it prints `text`."""
    process = start(command)
    assert process.stdout is not None
    seen = []
    for line in process.stdout:
        seen.append(line)
        if text in line:
            break
    else:
        raise AssertionError(f"{text!r} was never printed:\n{''.join(seen)[-4000:]}")
    victims = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    for victim in victims:
        victim.kill()
    psutil.wait_procs(victims, timeout=30)
    process.wait()


def deepspeed(num_ranks: int, *arguments: object, timeout: float = 200) -> subprocess.CompletedProcess[str]:
    return run(["deepspeed", "--num_gpus", num_ranks, "--master_port", free_port(), *arguments], timeout)


def metrics(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
