"""What each cell of an ablation would be, and whether it can be: flags with defaults, corpora, teacher, DeepSpeed JSON.

What decides a student is written down when its training starts, and compared whenever the folder is used again.
Everything here raises ValueError or OSError for what the user can change, before the first cell is started.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from data.blend import Blend
from data.blend_checks import check_held_out
from data.config import parse_corpora
from data.corpus import Corpus
from data.tokenizer import vocabulary_fingerprint
from evaluation.ablation.plan import Plan, arguments
from evaluation.task_data import read_split, source_of
from evaluation.tasks import task_named
from model.config import EncoderConfig, StudentConfig, read_json
from model.families import parse_config

ROOT = Path(__file__).resolve().parent.parent.parent
HOW = frozenset(
    (
        *("local_rank", "output", "resume", "seed", "plan", "stop_after", "profile", "log_every"),
        *("eval_data", "eval_every", "eval_sequences", "checkpoint_every", "keep_checkpoints", "max_failed_saves"),
        *("hang_timeout", "max_crashes", "check_weights_every", "check_teacher", "prefetch"),
    )
)
"""Flags of train.py that say how a run is run, and give the same student whatever they are."""
BY_CONTENT = ("ds_config", "data", "teacher")
"""Flags that name files, which count by what is in them and not by where they are."""
FINETUNE = ROOT / "finetune.py"
TEMPERATURE = 1.0
"""Of the KL divergence that students are compared by, whatever they were distilled with."""


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What the students of one name have to be."""

    flags: Mapping[str, Any]
    """All of train.py, defaults included."""
    record: Mapping[str, Any]
    """What decides the student: flags, and the files' content where that was looked at."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Of all cells."""

    cells: Mapping[str, Wanted]
    heldout: Mapping[str, Any]
    """How students are scored; with the content of text and teacher where that was looked at."""
    warnings: tuple[str, ...] = ()


def understand(plan: Plan) -> Settings:
    """From the file and train.py's defaults alone, which tells what is finished: corpora and teacher need not be there."""
    answers = _ask_train([arguments(cell.flags) for cell in plan.first_of_each.values()])
    cells = {}
    for name, answer in zip(plan.names, answers, strict=True):
        if "error" in answer:
            raise ValueError(f"{plan.path}: train.py refuses the flags of {name}: {answer['error']}")
        flags = answer["flags"] | {"ds_config": answer["ds_config"]}
        cells[name] = Wanted(flags=flags, record={"flags": _deciding(flags)})
    for number, name in enumerate(plan.names):
        for other in plan.names[:number]:
            if not differences(cells[name].flags, cells[other].flags):
                raise ValueError(
                    f"{plan.path}: {name} and {other} have the same flags, some of them by default, and would be the "
                    "same students. Leave one of them out"
                )
    shared = cells[plan.baseline].flags
    heldout = {
        "sequences": plan.heldout.sequences,
        "temperature": TEMPERATURE,
        **{name: shared[name] for name in ("max_length", "mask_probability", "mask_smoothing")},
    }
    return Settings(cells=cells, heldout=heldout)


def look_at_files(plan: Plan, known: Settings) -> Settings:
    """All that cells read is there, fits together, and is part of their records from now on."""
    check_launcher(plan)
    check_finetuning(plan)
    teacher = _read_teacher(str(known.cells[plan.baseline].flags["teacher"]))
    heldout = Corpus.open(plan.heldout.data, max_length=int(known.heldout["max_length"]))
    blends: dict[str, Blend] = {}
    cells, warnings = {}, []
    for name, wanted in known.cells.items():
        data, max_length = wanted.flags["data"], int(wanted.flags["max_length"])
        try:
            if (key := f"{data} {max_length}") not in blends:
                blends[key] = Blend.open(data, max_length=max_length)
            blend = blends[key]
            _check_fit(teacher, wanted.flags, blend)
            warnings += check_held_out(heldout, blend.corpora)
        except (ValueError, OSError) as error:
            raise ValueError(f"{plan.path}, cell {name}: {error}") from None
        files = {
            "ds_config": wanted.flags["ds_config"],
            "data": [corpus.sha256 for corpus in blend.corpora],
            "weights": list(parse_corpora(data)[1]),
            "teacher": teacher.sha256,
        }
        cells[name] = Wanted(flags=wanted.flags, record={**wanted.record, "files": files})
    scored = {**known.heldout, "data": heldout.sha256, "teacher": teacher.sha256}
    return Settings(cells=cells, heldout=scored, warnings=tuple(dict.fromkeys(warnings)))


def differences(flags: Mapping[str, Any], others: Mapping[str, Any]) -> dict[str, Any]:
    """Of what decides the student: by flag, the value that is not that of the others."""
    return {name: value for name, value in flags.items() if name not in HOW and others[name] != value}


def _check_fit(teacher: "_Teacher", flags: Mapping[str, Any], blend: Blend) -> None:
    """That a student can be made of the teacher for this text."""
    layers = StudentConfig(student_layers=flags["student_layers"]).layer_choice
    if outside := [layer for layer in layers if not 0 <= layer < teacher.config.num_layers]:
        raise ValueError(
            f"student_layers {flags['student_layers']}: the teacher {teacher.folder} has layers 0 to "
            f"{teacher.config.num_layers - 1}, not {', '.join(map(str, outside))}"
        )
    is_other = teacher.fingerprint is not None and teacher.fingerprint != blend.fingerprint
    if is_other or teacher.config.vocab_size != blend.vocab_size:
        raise ValueError(
            f"the teacher {teacher.folder} has another vocabulary than {blend.prefixes[0]}: prepare the text with its "
            "tokenizer"
        )
    if flags["max_length"] > teacher.config.max_positions:
        raise ValueError(
            f"max_length {flags['max_length']} exceeds the {teacher.config.max_positions} usable positions of the "
            f"teacher {teacher.folder}"
        )


def check_launcher(plan: Plan) -> None:
    """The launcher."""
    if plan.launcher and shutil.which(plan.launcher[0], path=environment()["PATH"]) is None:
        raise FileNotFoundError(
            f"the launcher {plan.launcher[0]!r} is not on the PATH. Install it, or pass another with --launcher"
        )


def check_finetuning(plan: Plan) -> None:
    """The flags of finetune.py, and the files of its tasks: found wrong now, and not after the first training."""
    if not plan.finetune:
        return
    # In a process of its own: `finetuning` is none of evaluation's business.
    program = "from command_line import parse; from finetuning.config import FinetuneConfig as Config; import sys; "
    program += "parse(Config, sys.argv[1:], '', prog='finetune.py')"
    flags = arguments({**plan.finetune, "model": "student", "output": "results"})
    asked = subprocess.run(
        [sys.executable, "-c", program, *flags], env=environment(), capture_output=True, text=True, check=False
    )
    if asked.returncode:
        raise ValueError(f"{plan.path}: finetune.py refuses the flags of finetune:\n{asked.stderr.strip()}")
    data = str(plan.finetune.get("data", "hf:"))
    for task in map(task_named, plan.tasks):
        for split in task.splits:
            source = str(plan.finetune.get("train_data", data)) if split == "train" else data
            if not source.startswith("hf:"):  # which takes the network, and minutes
                read_split(task, split, source_of(task, source))


def environment() -> dict[str, str]:
    """For the commands that cells are made of: this Python's launchers first, this repository's modules found."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    modules = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH", ""))))
    return os.environ | {"PATH": path, "PYTHONPATH": modules}


def _deciding(flags: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in flags.items() if name not in HOW and name not in BY_CONTENT}


def _ask_train(command_lines: list[list[str]]) -> list[dict[str, Any]]:
    """In a process of its own: `training` is none of evaluation's business."""
    asked = subprocess.run(
        [sys.executable, "-m", "launcher.train_flags"],
        env=environment(),
        input=json.dumps(command_lines),
        capture_output=True,
        text=True,
        check=False,
    )
    if asked.returncode:
        raise ValueError(f"launcher.train_flags ended with exit code {asked.returncode}: {asked.stderr.strip()[-500:]}")
    answers: list[dict[str, Any]] = json.loads(asked.stdout)
    return answers


class _Teacher(NamedTuple):
    folder: Path
    config: EncoderConfig
    fingerprint: str | None
    """Of its tokenizer; None where the folder has none."""
    sha256: str
    """Over its configuration and weights."""


def _read_teacher(name: str) -> _Teacher:
    folder = Path(name).expanduser()
    if not folder.is_dir():
        from model.hub import resolve_folder  # torch comes with it, for which a local teacher need not wait

        folder = resolve_folder(name)
    file = folder / "config.json"
    if not file.is_file():
        raise FileNotFoundError(f"the teacher {name} has no config.json. Pass the folder of a Hugging Face model")
    config, _ = parse_config(read_json(file), str(file))
    digest = hashlib.sha256()
    weights = sorted(folder.glob("*.safetensors")) or sorted(folder.glob("pytorch_model*.bin"))
    for path in (file, *weights):
        with path.open("rb") as stream:
            while block := stream.read(1 << 22):
                digest.update(block)
    return _Teacher(folder, config, vocabulary_fingerprint(folder), digest.hexdigest())
