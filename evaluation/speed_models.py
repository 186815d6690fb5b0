"""Models as users of their folders load them, and what they weigh: parameters, bytes on disk, resident memory.

`python -m evaluation.speed_models FOLDER` is the process that `resident_memory` starts for one model.
"""

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import transformers
from safetensors import SafetensorError
from torch import nn

from model.config import EncoderConfig, read_json
from model.families import parse_config
from model.hub import WEIGHT_FILES, read_config

ROOT = Path(__file__).resolve().parent.parent
MB = 1e6

PUBLISHED = {"bert-base": transformers.BertConfig, "distilbert": transformers.DistilBertConfig}
"""Names for --models -> configurations whose defaults are the published shapes."""

CLASSES = {
    "ForMaskedLM": transformers.AutoModelForMaskedLM,
    "ForSequenceClassification": transformers.AutoModelForSequenceClassification,
    "ForTokenClassification": transformers.AutoModelForTokenClassification,
    "ForQuestionAnswering": transformers.AutoModelForQuestionAnswering,
    "Model": transformers.AutoModel,
}
"""How the class that config.json names ends -> what loads it."""


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """What a model weighs, in parameters and bytes."""

    encoder_parameters: int
    """As AutoModel counts them: embeddings, layers and, for BERT and RoBERTa, the pooler; no head."""
    parameters: int
    """Of the model that was loaded, with its head; a decoder that is tied to the embeddings counts once."""
    weights_bytes: int
    """Of the files that transformers reads; for random weights what they would take in fp32."""
    folder_bytes: int | None
    """Of all files below the folder; None for random weights."""


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Resident bytes of a process of its own that loads one model."""

    imported: int
    """After importing torch, transformers and the model's class."""
    loaded: int
    """After loading the model in fp32. From safetensors hardly more: pages are mapped, and read when they are used."""
    ran: int
    """After one text of 32 tokens on one thread: all layers are there now, of the embeddings only the rows of its tokens."""


@dataclass(frozen=True, kw_only=True)
class LoadedModel:
    """A model in fp32 on the CPU, in evaluation mode."""

    source: str
    """Folder, or word of `PUBLISHED`."""
    module: nn.Module
    config: EncoderConfig
    """Its shape; `max_positions` are those that tokens can have."""
    pad_id: int
    sizes: Sizes


def load(source: str) -> LoadedModel:
    """A folder, or one of `PUBLISHED` with random weights.

    Raises:
        FileNotFoundError: no such folder, no config.json or no weights in it.
        ValueError: config.json or weights that are not those of a model we know.
    """
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    if source in PUBLISHED:
        config = PUBLISHED[source](num_labels=1)  # the head of STS-B: one score
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            module = CLASSES["ForSequenceClassification"].from_config(config, dtype=torch.float32)
        shape, _ = parse_config(config.to_dict(), source)
        weights_bytes, folder_bytes = sum(p.nbytes for p in module.parameters()), None
    else:
        folder = Path(source).expanduser()
        if not folder.is_dir():
            raise FileNotFoundError(
                f"no model at {source!r}: not a folder. Give a Hugging Face folder with config.json and "
                f"model.safetensors, or one of {', '.join(PUBLISHED)} for random weights"
            )
        shape, _ = read_config(folder)
        weights_bytes = sum(file.stat().st_size for file in weight_files(folder))
        folder_bytes = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        module = _from_folder(folder)
        config = module.config
    with torch.device("meta"):
        encoder = transformers.AutoModel.from_config(config)
    sizes = Sizes(
        encoder_parameters=sum(p.numel() for p in encoder.parameters()),
        parameters=sum(p.numel() for p in module.parameters()),  # each tied parameter once
        weights_bytes=weights_bytes,
        folder_bytes=folder_bytes,
    )
    return LoadedModel(source=source, module=module.eval(), config=shape, pad_id=config.pad_token_id or 0, sizes=sizes)


def _class_name(source: str) -> str:
    """What config.json names; the published shapes have the head of STS-B."""
    if source in PUBLISHED:
        return f"{PUBLISHED[source].__name__.removesuffix('Config')}ForSequenceClassification"
    names = read_json(Path(source).expanduser() / "config.json").get("architectures")
    return str(names[0]) if isinstance(names, list) and names else "Model"


def weight_files(folder: Path) -> list[Path]:
    """The files that transformers reads, in its order of preference: others in the folder are copies."""
    file = next((folder / name for name in WEIGHT_FILES if (folder / name).is_file()), None)
    if file is None:
        raise FileNotFoundError(f"no weights in {folder} (looked for {', '.join(WEIGHT_FILES)})")
    if not file.name.endswith(".index.json"):
        return [file]
    names = read_json(file).get("weight_map")
    if not isinstance(names, dict) or not all(isinstance(name, str) for name in names.values()):
        raise ValueError(f"{file} has no weight_map from parameters to files")
    return [folder / name for name in sorted(set(names.values()))]


def _from_folder(folder: Path) -> nn.Module:
    name = _class_name(str(folder))
    loader = next((loader for end, loader in CLASSES.items() if name.endswith(end)), None)
    if loader is None:
        raise ValueError(f"{folder}/config.json: no speed of {name} is measured, only of {', '.join(CLASSES)}")
    try:
        module, info = loader.from_pretrained(
            str(folder), dtype=torch.float32, local_files_only=True, output_loading_info=True
        )
    except (RuntimeError, SafetensorError, KeyError, TypeError, EOFError) as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise ValueError(f"transformers cannot load the weights of {folder}: {reason[0]}") from None
    missing = sorted(name for name in info["missing_keys"] if "pooler." not in name)  # masked-LM checkpoints have none
    if missing:
        raise ValueError(
            f"{folder} lacks {len(missing)} weights that its config.json promises, {', '.join(missing[:3])} among them: "
            "it is no whole model"
        )
    return module


def resident_memory(sources: Sequence[str]) -> list[Memory]:
    """Each model in a process of its own, so that nothing of another's is counted."""
    found = []
    for source in sources:
        command = [sys.executable, "-m", "evaluation.speed_models", str(_absolute(source))]
        process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        if process.returncode:
            last = process.stderr.strip().splitlines() or [f"exit code {process.returncode}"]
            raise ValueError(f"the process that measures the memory of {source} failed: {last[-1]}")
        found.append(Memory(**json.loads(process.stdout.splitlines()[-1])))
    return found


def _absolute(source: str) -> str | Path:
    return source if source in PUBLISHED else Path(source).expanduser().absolute()


@torch.inference_mode()
def _measure_memory(source: str) -> Memory:
    torch.set_num_threads(1)
    getattr(transformers, _class_name(source), None)  # imported at first use, with 200 MB of libraries that it needs
    imported = resident_bytes()
    model = load(source)
    loaded = resident_bytes()
    model.module(input_ids=torch.full((1, min(32, model.config.max_positions)), model.config.vocab_size - 1))
    return Memory(imported=imported, loaded=loaded, ran=resident_bytes())


def resident_bytes() -> int:
    """Of this process, now. 0 where the system has no /proc."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("VmRSS:")), 0)


if __name__ == "__main__":
    print(json.dumps(asdict(_measure_memory(sys.argv[1]))))
