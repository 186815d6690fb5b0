"""A run in small: teacher and student of two layers and one, few updates, small updates; everything else is the user's."""

import dataclasses
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data.config import DataConfig
from model.config import ObjectiveConfig, StudentConfig, read_json
from training.config import RunConfig

UPDATES, LAYERS = 6, 2
TOKENS_ON_A_CPU = 1024
"""Of a micro-batch on a CPU, where a GPU's would take minutes."""


@dataclass(frozen=True, kw_only=True)
class Flags:
    """Those of train.py."""

    run: RunConfig
    data: DataConfig
    student: StudentConfig
    objective: ObjectiveConfig


def shrink(flags: Flags, folder: Path, num_ranks: int, on_gpu: bool) -> tuple[Flags, list[str]]:
    """The same run in small under `folder`, and what was changed besides its size."""
    ds, notes = read_json(Path(flags.run.ds_config)), []
    size = ds["train_micro_batch_size_per_gpu"]
    student = dataclasses.replace(flags.student, student_layers="", check_teacher=False)
    if not on_gpu:
        size = min(size, max(1, TOKENS_ON_A_CPU // flags.data.max_length))
        if ds.get("fp16", {}).get("enabled"):
            ds["fp16"]["enabled"], ds["bf16"] = False, {"enabled": True}
            notes.append("no GPU here: bf16 instead of fp16")
        for name, only_gpu in (("teacher_dtype", "fp16"), ("attention", "varlen"), ("kernels", "triton apex")):
            if getattr(student, name) in only_gpu.split():
                notes.append(f"no GPU here: --{name} auto instead of {getattr(student, name)}")
                changed: dict[str, Any] = {name: "auto"}
                student = dataclasses.replace(student, **changed)
    ds |= {"train_micro_batch_size_per_gpu": size, "train_batch_size": size * num_ranks * 2}
    (folder / "ds.json").write_text(json.dumps(ds))
    if student.architecture:
        shape = read_json(Path(student.architecture))
        layers = "n_layers" if shape.get("model_type") == "distilbert" else "num_hidden_layers"
        (folder / "architecture.json").write_text(json.dumps(shape | {layers: LAYERS}))
        student = dataclasses.replace(student, architecture=str(folder / "architecture.json"))
    else:
        cut_teacher(student.teacher, folder / "teacher")
        student = dataclasses.replace(student, teacher=str(folder / "teacher"))
    run = dataclasses.replace(
        flags.run,
        ds_config=str(folder / "ds.json"),
        output=str(folder / "run"),
        max_updates=UPDATES,
        checkpoint_every=1,
        log_every=1,
        eval_every=UPDATES,
        eval_sequences=32,
        profile=0,
        plan=0,
        resume=False,
        stop_after="",
    )
    return dataclasses.replace(flags, run=run, student=student), notes


def cut_teacher(name: str, target: Path) -> None:
    """The first two layers of a teacher, with everything around them and its tokenizer, as a folder of its own."""
    from model.bert import MaskedLanguageModel
    from model.hub import WEIGHT_FILES, load_model, read_config, read_special_ids, resolve_folder, save_model

    source = resolve_folder(name)
    whole, (_, family) = load_model(source), read_config(source)
    short = MaskedLanguageModel(dataclasses.replace(whole.config, num_layers=min(LAYERS, whole.config.num_layers)))
    kept = whole.state_dict()
    short.load_state_dict({key: kept[key] for key in short.state_dict()})
    save_model(short, target, family.model_type, short.state_dict(), read_special_ids(source))
    for file in source.iterdir():
        weights = file.name in WEIGHT_FILES or file.suffix in (".safetensors", ".bin", ".h5", ".msgpack", ".onnx")
        if file.is_file() and not weights and file.name != "config.json":
            shutil.copy(file, target / file.name)


def arguments(flags: Flags) -> list[str]:
    """The command line that parses to `flags`: what differs from the defaults."""
    words = []
    for group in (flags.run, flags.data, flags.student, flags.objective):
        for field in dataclasses.fields(group):
            value = getattr(group, field.name)
            if value == field.default:
                continue
            if isinstance(value, bool):
                words.append(f"--{field.name}" if value else f"--no_{field.name}")
            else:
                words += [f"--{field.name}", *map(str, value if isinstance(value, tuple) else (value,))]
    return words
