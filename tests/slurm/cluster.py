"""A SLURM of two nodes on this machine: the real daemons in a folder and on ports of their own."""

import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from tests.launch import ROOT, environment, free_port

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol", "scancel", "setpriv")
ENDED = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY", "BOOT_FAIL", "DEADLINE")
CONFIG = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/backfill
ReturnToService=2
SlurmdParameters=config_overrides
NodeName=n0 NodeHostname={host} NodeAddr=127.0.0.1 Port={n0_port} CPUs=2 RealMemory=1000 State=UNKNOWN
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={n1_port} CPUs=2 RealMemory=1000 State=UNKNOWN
PartitionName=main Nodes=n[0-1] Default=YES MaxTime=INFINITE State=UP
"""


def why_not() -> str:
    """Why no cluster can be started here; empty where it can."""
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if missing:
        return f"not installed: {', '.join(missing)} (apt-get install slurm-wlm munge)"
    return "" if os.geteuid() == 0 else "slurmd starts jobs only as root"


class Cluster:
    """Started by `start`; every daemon ends with this process, whatever ends it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.daemons: list[subprocess.Popen[bytes]] = []
        self.config = folder / "slurm.conf"
        ports = {f"{name}_port": free_port() for name in ("controller", "n0", "n1")}
        (folder / "state").mkdir()
        self.config.write_text(CONFIG.format(folder=folder, host=socket.gethostname().split(".")[0], **ports))
        key = folder / "munge.key"
        key.touch(mode=0o600)
        key.write_bytes(os.urandom(128))

    def start(self) -> None:
        folder = self.folder
        files = [
            f"--{name}={folder}/munge.{name.removesuffix('-file')}"
            for name in ("key-file", "pid-file", "log-file", "seed-file", "socket")
        ]
        self._start("munged", "--foreground", "--force", *files)
        self._until(lambda: (folder / "munge.socket").exists(), "munged")
        self._start("slurmctld", "-D")
        for node in ("n0", "n1"):
            self._start("slurmd", "-D", "-N", node)
        self._until(lambda: self.run("sinfo", "-h", "-o", "%T").split() == ["idle"], "two idle nodes")

    def _start(self, *command: str) -> None:
        tied = ["setpriv", "--pdeathsig", "KILL", *command]
        with (self.folder / "daemons.log").open("ab") as log:
            self.daemons.append(
                # not in the terminal's process group: after Ctrl-C they are still needed to cancel what runs
                subprocess.Popen(tied, env=self.environment(), stdout=log, stderr=log, start_new_session=True)
            )

    def stop(self) -> None:
        try:
            self.cancel_all()
        finally:
            for daemon in reversed(self.daemons):
                daemon.terminate()
                try:
                    daemon.wait(20)
                except subprocess.TimeoutExpired:
                    daemon.kill()
                    daemon.wait()

    def environment(self) -> dict[str, str]:
        inherited = {k: v for k, v in environment().items() if not k.startswith(("SLURM_", "SBATCH_", "SRUN_"))}
        return inherited | {"SLURM_CONF": str(self.config)}

    def run(self, *command: object) -> str:
        """One of SLURM's commands, in the repository's root; its standard output, also where it fails."""
        parts = [str(part) for part in command]
        return subprocess.run(
            parts, cwd=ROOT, env=self.environment(), text=True, stdout=subprocess.PIPE, timeout=60, check=False
        ).stdout

    def submit(self, options: list[object], arguments: list[object], log: Path) -> str:
        """sbatch launcher/slurm.sbatch; the job's number."""
        job = self.run("sbatch", "--parsable", f"--output={log}", *options, "launcher/slurm.sbatch", *arguments).strip()
        assert job.isdecimal(), job
        return job

    def show(self, job: str) -> dict[str, str]:
        """JobState, Reason, Restarts, ExitCode, ..."""
        return dict(re.findall(r"(\w+)=(\S*)", self.run("scontrol", "show", "job", "--oneliner", job)))

    def wait(self, job: str, *states: str, timeout: float = 500) -> dict[str, str]:
        """Until the job is in one of `states`; fails where it has ended in another."""
        deadline = time.monotonic() + timeout
        while (shown := self.show(job))["JobState"] not in states:
            assert shown["JobState"] not in ENDED, shown
            assert time.monotonic() < deadline, shown
            time.sleep(0.3)
        return shown

    def restart_now(self, job: str, restart: int = 1, **changes: object) -> None:
        """A job that is queued again waits two minutes otherwise, counted from when its last process is gone."""
        self._until(lambda: self.show(job)["Restarts"] == str(restart), f"restart {restart} of job {job}", timeout=500)
        time.sleep(1.5)  # slurmd takes a credential of the second in which the job ended for the one revoked then
        update = ["scontrol", "update", f"jobid={job}", "StartTime=now", *(f"{k}={v}" for k, v in changes.items())]
        self._until(lambda: bool(self.run(*update)) or self.show(job)["JobState"] != "PENDING", f"start of job {job}")

    def cancel_all(self) -> None:
        self.run("scancel", "--user=root")
        self._until(lambda: not self.run("squeue", "-h").strip(), "an empty queue")

    def _until(self, is_so: Callable[[], bool], what: str, timeout: float = 100) -> None:
        deadline = time.monotonic() + timeout
        while not is_so():
            if time.monotonic() > deadline:
                logs = "\n".join(f"{log}:\n{log.read_text()[-1500:]}" for log in sorted(self.folder.glob("*.log")))
                raise TimeoutError(f"no {what} in {timeout:.0f} s\n{logs}")
            time.sleep(0.5)
