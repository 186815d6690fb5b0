"""What this machine has: accelerators, shared memory, file limits, and a disk that keeps what is written."""

import fcntl
import os
import resource
import shutil
import subprocess
import tempfile
from pathlib import Path

from launcher.checks.finding import Finding, failed, ok, warning

MIB = 2**20
LEAST_SHM, ENOUGH_SHM = 64 * MIB, 1024 * MIB
"""Docker's default, and what NVIDIA's documentation of NCCL gives containers."""
FEWEST_FILES, ENOUGH_FILES = 1024, 4096
LEAST_DISK, ENOUGH_DISK = 100 * MIB, 5 * 1024 * MIB


def check_accelerators() -> list[Finding]:
    """A line for each GPU, or for the CPU."""
    import torch

    if not torch.cuda.is_available():
        return [_without_gpu(torch.version.cuda)]
    driver = (_nvidia_smi("driver_version") or ["unknown"])[0]
    nccl = ".".join(map(str, torch.cuda.nccl.version()))
    lines = [ok(f"{torch.cuda.device_count()} GPUs, driver {driver}, CUDA {torch.version.cuda}, NCCL {nccl}")]
    for number in range(torch.cuda.device_count()):
        device = torch.cuda.get_device_properties(number)
        free, total = torch.cuda.mem_get_info(number)
        found = (
            f"GPU {number}: {device.name}, compute capability {device.major}.{device.minor}, {total / 2**30:.0f} GiB"
        )
        if free < 0.9 * total:
            why = f"another process holds {(total - free) / 2**30:.1f} GiB of it"
            lines.append(warning(found, why, f"nvidia-smi -i {number} names it"))
        elif (device.major, device.minor) < (8, 0):
            why = "no bf16 and none of our fused kernels below 8.0"
            lines.append(warning(found, why, "use ds_configs/zero2_fp16.json"))
        else:
            lines.append(ok(found))
    return lines


def _without_gpu(built_for: str | None) -> Finding:
    import torch

    present = _nvidia_smi("name")
    if present:
        torch_is = f"torch is built for CUDA {built_for}" if built_for else "torch is built for CPUs alone"
        why = "training would run on the CPU, hundreds of times slower"
        action = "install torch for this driver's CUDA; see what torch.cuda.init() says"
        return failed(f"{len(present)} GPUs ({present[0]}) that torch cannot use: {torch_is}", why, action)
    cores = len(os.sched_getaffinity(0))
    bf16 = "with" if torch.cpu._is_avx512_bf16_supported() else "without"
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    return ok(f"no GPU: {cores} CPU cores {bf16} AVX512-BF16, {memory:.0f} GiB of memory, ranks talk through gloo")


def _nvidia_smi(field: str) -> list[str]:
    """A field of every GPU that the driver knows; empty without a driver."""
    if shutil.which("nvidia-smi") is None:
        return []
    command = ["nvidia-smi", f"--query-gpu={field}", "--format=csv,noheader"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    return result.stdout.split("\n")[:-1] if result.returncode == 0 else []


def check_shared_memory(folder: Path = Path("/dev/shm")) -> Finding:
    """NCCL and MPI map buffers there; a full one kills a rank by SIGBUS."""
    action = (
        "container: --shm-size=8g (or --ipc=host); else mount -o remount,size=8G /dev/shm, and delete leftovers there"
    )
    if not folder.is_dir():
        return failed(f"no {folder}", "ranks of a host talk through it", action)
    space = os.statvfs(folder)
    size, free = space.f_blocks * space.f_frsize, space.f_bavail * space.f_frsize
    found = f"{folder}: {size / MIB:,.0f} MiB, {free / MIB:,.0f} free"
    why = "NCCL takes some MiB of it for each GPU; a full one kills ranks"
    if free <= LEAST_SHM:
        return failed(found, why, action)
    return ok(found) if free >= ENOUGH_SHM else warning(found, why, action)


def check_open_files() -> Finding:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    found = f"{soft} open files a process"
    why, action = "sockets between ranks, corpus shards and logs need descriptors", f"ulimit -n {min(hard, 65536)}"
    if soft < FEWEST_FILES:
        return failed(found, why, action)
    return ok(found) if soft >= ENOUGH_FILES else warning(found, why, action)


def check_disk(folder: Path) -> list[Finding]:
    """Whether checkpoints can be committed in `folder`, and locks taken: tried in it or where it would be made."""
    place = folder
    while not place.exists():
        place = place.parent
    try:
        with tempfile.TemporaryDirectory(prefix=".doctor-", dir=place) as probe:
            _commit(Path(probe))
            lock = _lock(Path(probe))
    except OSError as error:
        why = "nothing of a run could be kept"
        return [failed(f"{place} cannot be written to: {error}", why, "choose another --output, or free the disk")]
    free = shutil.disk_usage(place).free
    found = f"{place}: write, fsync and rename work, {free / 2**30:,.1f} GiB free"
    why = "a checkpoint of BERT-base's student takes 0.8 GB, and two are kept"
    action = "free the disk, or choose another --output; train.py --plan tells how much a run needs"
    space = failed if free < LEAST_DISK else warning if free < ENOUGH_DISK else None
    return [ok(found) if space is None else space(found, why, action), lock]


def _commit(folder: Path) -> None:
    """What a checkpoint does: write, fsync, rename, fsync the folder."""
    partial, final = folder / "probe.partial", folder / "probe"
    with partial.open("wb") as file:
        file.write(os.urandom(MIB))
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, final)
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
    if final.stat().st_size != MIB:
        raise OSError(f"{final} has {final.stat().st_size} bytes after writing {MIB}")


def _lock(folder: Path) -> Finding:
    """flock must keep a second holder out: two runs in one folder would overwrite each other."""
    why, action = (
        "nothing would stop two runs in one folder",
        "mount it with flock (Lustre: -o flock), or take care yourself",
    )
    with (folder / "lock").open("w") as first, (folder / "lock").open("w") as second:
        try:
            fcntl.flock(first, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            return warning(f"flock does not work there: {error.strerror}", why, action)
        try:
            fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return ok("flock works there")
        return warning("flock lets two holders in there", why, action)
