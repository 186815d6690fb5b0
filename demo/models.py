"""Exports as the page needs them: which files, and whether they are of a model that answers questions."""

import json
from dataclasses import dataclass
from pathlib import Path

FILES = {"int8": "onnx/model_int8.onnx", "int8_static": "onnx/model_int8_static.onnx", "fp32": "onnx/model.onnx"}
TEXT_FILES = {"tokenizer": "tokenizer.json", "tokenizerConfig": "tokenizer_config.json", "golden": "golden.json"}
"""Name in site.json -> file of an export."""


@dataclass(frozen=True, kw_only=True)
class Model:
    """An export of which the page gets one ONNX file."""

    title: str
    """For the page's reader."""
    folder: Path
    precision: str

    @property
    def name(self) -> str:
        """Its ONNX file, as golden.json calls it."""
        return FILES[self.precision]


def check_model(model: Model, flag: str) -> None:
    """Errors: FileNotFoundError, ValueError, naming the flag and what to do."""
    if not model.folder.is_dir():
        raise FileNotFoundError(
            f"{flag} {model.folder}: no such folder. Write one: python export.py --input MODEL --output DIR"
        )
    for name in (model.name, *TEXT_FILES.values()):
        if not (model.folder / name).is_file():
            raise FileNotFoundError(
                f"{flag} {model.folder}: no {name} in it. Export the model again: python export.py --input MODEL --output "
                f"DIR --formats onnx --variants {model.precision}"
            )
    beside = (model.folder / model.name).with_suffix(".onnx.data")
    if beside.exists():
        raise ValueError(
            f"{flag} {model.folder}: the weights of {model.name} are in {beside.name}, and a page reads one file"
        )
    try:
        golden = json.loads((model.folder / "golden.json").read_bytes())
        kind, known = golden["kind"], list(golden["variants"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{flag} {model.folder}: golden.json is not an export's ({error!r}). Export the model again"
        ) from None
    if kind != "span":
        raise ValueError(
            f"{flag} {model.folder}: its task is {golden.get('task')} ({kind}), and the page answers questions. "
            "Fine-tune on SQuAD (python finetune.py --task squad) and export that"
        )
    if model.name not in known:
        raise ValueError(f"{flag} {model.folder}: golden.json has no record of {model.name}. Export the model again")
