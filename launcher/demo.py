"""From nothing to a distilled student in minutes on two CPU cores: what `make demo` runs.

Every step is a command that a user could type; it is printed before it runs. A second run reuses what is complete.
"""

import shutil
import subprocess
import sys
import time
from pathlib import Path

CORPUS, RUNS = Path("corpus/demo"), Path("runs/demo")
DS_CONFIG = "ds_configs/zero2_cpu.json"
VOCABULARY, MAX_LENGTH = 8000, 64
TEACHER_UPDATES, STUDENT_UPDATES = 1000, 300
REPORTED = ("distilled", "random_start", "teacher")
MASK_SMOOTHING = 0  # uniform masks: frequent words come first, all that a teacher of three minutes learns


def main() -> int:
    started = time.monotonic()
    text = CORPUS / "text"
    step("harvest the documentation of the installed packages", text / "heldout.jsonl", python("launcher.harvest"))
    train, heldout = CORPUS / "train", CORPUS / "heldout"
    step(
        "train a vocabulary and prepare the corpus",
        Path(f"{train}.json"),
        python("data.prepare", "--input", text / "train.jsonl", "--train_vocab", VOCABULARY, "--output", train),
    )
    step(
        "prepare the held-out text",
        Path(f"{heldout}.json"),
        python(
            "data.prepare", "--input", text / "heldout.jsonl", "--tokenizer", f"{train}.tokenizer", "--output", heldout
        ),
    )
    teacher = RUNS / "teacher" / "student"
    architecture = ["--objective", "mlm", "--architecture", "launcher/demo_teacher.json", "--dropout", 0]
    train_run("pre-train a small teacher", "teacher", TEACHER_UPDATES, *architecture)
    students = {"distilled": [], "random start": ["--student_init", "random"]}
    for name, flags in students.items():
        folder = name.replace(" ", "_")
        train_run(f"distil a student of half its depth ({name})", folder, STUDENT_UPDATES, "--teacher", teacher, *flags)
    print(f"\n== compare on held-out text, {time.monotonic() - started:.0f} s after the start", flush=True)
    folders = [f"{name}={RUNS / name.replace(' ', '_') / 'student'}" for name in students]
    command = python("evaluation.compare", "--teacher", teacher, "--data", heldout, "--max_length", MAX_LENGTH)
    run([*command, "--mask_smoothing", MASK_SMOOTHING, "--students", *folders])
    print("\n== report on the runs", flush=True)
    report = RUNS / "report"
    run([*python("evaluation.report", *(RUNS / name for name in REPORTED)), "--output", report])
    print(
        f"\nBoth students trained for the same {STUDENT_UPDATES} updates on the same sequences; they differ in their first "
        f"weights.\nThe student: {RUNS / 'distilled' / 'student'} (DistilBertForMaskedLM.from_pretrained opens it)"
        f"\nThe report: {report / 'report.html'}\nTensorBoard: .venv/bin/tensorboard --logdir {RUNS}"
    )
    return 0


def train_run(title: str, name: str, updates: int, *flags: object) -> None:
    """A run of train.py under the deepspeed launcher, resumed where it was interrupted after a checkpoint."""
    folder = RUNS / name
    if (folder / "student").exists():
        step(title, folder / "student", [])
        return
    resume = ["--resume"] if (folder / "checkpoints" / "latest.json").exists() else []
    if not resume:
        shutil.rmtree(folder, ignore_errors=True)  # interrupted before its first checkpoint
    launcher = [Path(sys.executable).with_name("deepspeed"), "--num_gpus", num_ranks()]
    common = {
        "ds_config": DS_CONFIG,
        "data": CORPUS / "train",
        "eval_data": CORPUS / "heldout",
        "max_length": MAX_LENGTH,
        "mask_smoothing": MASK_SMOOTHING,
        "max_updates": updates,
        "log_every": 50,
        "eval_every": 250,
        "eval_sequences": 256,
        "checkpoint_every": 250,
        "output": folder,
    }
    named = [part for flag, value in common.items() for part in (f"--{flag}", value)]
    step(title, folder / "student", [*launcher, "train.py", *named, *flags, *resume])


def num_ranks() -> int:
    """Two CPU processes, or one or two of the GPUs."""
    import torch

    return min(2, torch.cuda.device_count()) or 2


def step(title: str, product: Path, command: list[object]) -> None:
    if product.exists():
        print(f"== {title}: {product} is there already", flush=True)
        return
    print(f"\n== {title}", flush=True)
    run(command)


def run(command: list[object]) -> None:
    parts = [str(part) for part in command]
    print(f"$ {' '.join(parts)}", flush=True)
    result = subprocess.run(parts)
    if result.returncode:
        raise SystemExit(f"error: this step ended with exit code {result.returncode}; `make demo` continues from here")


def python(module: str, *arguments: object) -> list[object]:
    return [sys.executable, "-m", module, *arguments]


if __name__ == "__main__":
    sys.exit(main())
