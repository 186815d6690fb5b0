"""Hugging Face folders <-> our parameters. What they are called is in model/families.py."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from model.bert import MaskedLanguageModel
from model.config import EncoderConfig, read_json
from model.families import (
    FAMILIES,
    Family,
    check_layout,
    expand_names,
    parse_config,
    special_ids,
    unused_positions,
)
from model.kernels.choice import Kernels

WEIGHT_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)

SAFE_TORCH = "2.10"
"""From here on a crafted file cannot get around weights_only: CVE-2025-32434 (2.6) and CVE-2026-24747 (2.10) are closed."""


WANTED_FILES = ("*.json", "vocab.txt", "merges.txt", "*.model", "model*.safetensors")
"""Of a hub repository: configuration, weights, and the tokenizer of any kind (vocab.json is a *.json)."""

# In published checkpoints and of no use here: pooler, next-sentence head, constant buffers. The decoder is looked at.
HARMLESS = ("pooler.", "cls.seq_relationship.", "position_ids", "token_type_embeddings")


def resolve_folder(name: str) -> Path:
    """A local folder as it is, anything else as a hub id, downloaded to the Hugging Face cache.

    Raises:
        FileNotFoundError: neither a folder nor reachable on the hub.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    from huggingface_hub import snapshot_download

    try:
        folder = Path(snapshot_download(name, allow_patterns=list(WANTED_FILES)))
        if not any((folder / file).is_file() for file in WEIGHT_FILES):  # published before safetensors
            snapshot_download(name, allow_patterns=["pytorch_model*.bin"])
        return folder
    except Exception as error:  # the hub client raises a dozen unrelated types: no network, no such id, no permission
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise FileNotFoundError(
            f"no model at {name!r}: not a local folder, and the hub did not provide it ({reason[0]}). "
            "Pass the path of a folder with config.json and model.safetensors"
        ) from None


def read_config(folder: Path) -> tuple[EncoderConfig, Family]:
    """config.json -> our configuration; refuses what our encoder does not compute."""
    return parse_config(*_raw_config(folder))


def read_special_ids(folder: Path) -> dict[str, int]:
    """Role (pad, cls, sep) -> token id, those that the folder's config.json names: what `save_model` takes."""
    raw, source = _raw_config(folder)
    return special_ids(raw, parse_config(raw, source)[1], source)


def _raw_config(folder: Path) -> tuple[dict, str]:
    path = folder / "config.json"
    if not path.is_file():
        raise FileNotFoundError(f"no config.json in {folder}: not a Hugging Face model folder")
    return read_json(path), str(path)


def load_model(folder: Path, kernels: Kernels | None = None) -> MaskedLanguageModel:
    """A masked language model from a folder of one of the families, in fp32 on the CPU, in evaluation mode.

    Raises:
        FileNotFoundError: no weights there.
        ValueError: keys missing, unexpected or of another shape (all are named), no masked-LM head, or one that is not tied.
    """
    raw, source = _raw_config(folder)
    config, family = parse_config(raw, source)
    published = _normalise_names(_read_weights(folder), family)
    _check_tied(published, family, folder)
    first = unused_positions(family, special_ids(raw, family, source))
    with torch.device("meta"):
        model = MaskedLanguageModel(config, kernels)
    wanted = {name: tuple(p.shape) for name, p in model.state_dict().items()}
    weights, unexpected = _from_published(published, family, config, folder)
    weights["encoder.position.weight"] = weights["encoder.position.weight"][first:].clone()
    wrong = [
        f"{n} {tuple(weights[n].shape)}, expected {wanted[n]}" for n in wanted if tuple(weights[n].shape) != wanted[n]
    ]
    if wrong or unexpected:
        raise ValueError(f"{folder} does not fit its config.json: wrong shape: {wrong}; unexpected: {unexpected}")
    model.load_state_dict(weights, assign=True)
    return model.eval()


def save_model(
    model: MaskedLanguageModel,
    folder: Path,
    model_type: str,
    weights: Mapping[str, Tensor],
    ids: Mapping[str, int] | None = None,
) -> None:
    """Write config.json and model.safetensors such that `transformers` loads the folder.

    `weights` are the values to write by our parameter names (under ZeRO the engine gathers fp32 masters; otherwise
    `model.state_dict()`). Token types, and positions that no token uses, are zeros: ours are folded into the positions.
    `ids` of the tokenizer's tokens by role (pad, cls, sep); by default those that the family is published with.
    """
    family, config = FAMILIES[model_type], model.config
    check_layout(config, model_type)
    folder.mkdir(parents=True, exist_ok=True)
    known = {role: (ids or {}).get(role, usual) for role, usual in family.special_ids.values()}
    first = unused_positions(family, known)
    published: dict[str, Tensor] = {}
    for ours, theirs in expand_names(family, config.num_layers):
        value = weights[ours].detach().to("cpu", torch.float32)
        if ours in ("encoder.word.weight", "head.bias"):
            value = value[: config.vocab_size]
        if ours == "encoder.position.weight":
            value = torch.cat([value.new_zeros(first, config.hidden_size), value])
        for name, part in zip(theirs, value.chunk(len(theirs)), strict=True):
            published[name] = part.clone()
    if family.token_types:
        published[family.token_types] = torch.zeros(family.num_token_types, config.hidden_size)
    raw = {key: getattr(config, ours) for ours, key in family.config.items()}
    raw |= {"max_position_embeddings": config.max_positions + first, **family.constants}
    raw |= {key: known[role] for key, (role, _) in family.special_ids.items()}
    raw |= {"model_type": model_type, "architectures": [family.class_name], "dtype": "float32"}
    save_file(published, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(raw, indent=2) + "\n", encoding="utf-8")


def _from_published(
    published: dict[str, Tensor], family: Family, config: EncoderConfig, folder: Path
) -> tuple[dict[str, Tensor], list[str]]:
    rows = expand_names(family, config.num_layers)
    missing = [name for _, theirs in rows for name in theirs if name not in published]
    if headless := [name for name in missing if name.startswith(family.head)]:
        raise ValueError(
            f"{folder} has no masked-LM head (missing {', '.join(headless)}): distillation needs a teacher that predicts "
            f"words, saved by {family.class_name}, not only its encoder or another head"
        )
    if missing:
        raise ValueError(f"{folder} lacks weights its config.json promises: {', '.join(missing)}")
    used = {name for _, theirs in rows for name in theirs} | {f"{family.decoder}.weight", f"{family.decoder}.bias"}
    unexpected = [n for n in published if n not in used and not any(part in n for part in HARMLESS)]
    weights = {ours: torch.cat([published[name].float() for name in theirs]) for ours, theirs in rows}
    if family.token_types and family.token_types in published:
        weights["encoder.position.weight"] += published[family.token_types][0].float()
    extra = config.padded_vocab_size - config.vocab_size
    for name in ("encoder.word.weight", "head.bias"):
        padding = weights[name].new_zeros(extra, *weights[name].shape[1:])
        weights[name] = torch.cat([weights[name], padding])
    return weights, unexpected


def _normalise_names(published: dict[str, Tensor], family: Family) -> dict[str, Tensor]:
    """TensorFlow-era checkpoints (bert-base-uncased among them) call a norm's weight gamma and its bias beta."""
    renamed = {}
    for name, value in published.items():
        for old, new in ((".gamma", ".weight"), (".beta", ".bias")):
            if name.endswith(f"LayerNorm{old}"):
                name = name.removesuffix(old) + new
        renamed[name] = value
    (bias,) = family.names["head.bias"]
    if bias not in renamed and f"{family.decoder}.bias" in renamed:
        renamed[bias] = renamed[f"{family.decoder}.bias"]
    return renamed


def _check_tied(published: dict[str, Tensor], family: Family, folder: Path) -> None:
    """A checkpoint may repeat the word embedding and the bias as the decoder's; transformers then uses what it repeats."""
    for ours, name in (("encoder.word.weight", "weight"), ("head.bias", "bias")):
        (own,), copy = family.names[ours], f"{family.decoder}.{name}"
        if own in published and copy in published and not torch.equal(published[own], published[copy]):
            raise ValueError(
                f"{folder}: {copy} differs from {own}. Only models that predict with their word embeddings are supported"
            )


def _read_weights(folder: Path) -> dict[str, Tensor]:
    file = next((folder / name for name in WEIGHT_FILES if (folder / name).is_file()), None)
    if file is None:
        raise FileNotFoundError(f"no weights in {folder} (looked for {', '.join(WEIGHT_FILES)})")
    if file.name.endswith(".index.json"):
        weight_map = read_json(file).get("weight_map")
        if not isinstance(weight_map, dict) or not all(isinstance(shard, str) for shard in weight_map.values()):
            raise ValueError(f"{file}: weight_map is not an object of file names")
        shards: Iterable[str] = sorted(set(weight_map.values()))
        outside = [shard for shard in shards if Path(shard).name != shard]
        if outside:
            raise ValueError(f"{file} names weights outside its folder: {outside}")
    else:
        shards = [file.name]
    weights: dict[str, Tensor] = {}
    for shard in shards:
        weights |= _read_weight_file(folder / shard)
    return weights


def _read_weight_file(path: Path) -> dict[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        if torch.__version__ < SAFE_TORCH:  # compares as a version, not as text
            raise ValueError(f"torch {torch.__version__} can run code from it, {SAFE_TORCH} cannot. Upgrade torch")
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} is named by its index but is not there") from None
    except (SafetensorError, RuntimeError, EOFError, OSError, ValueError) as error:
        raise ValueError(f"{path} is damaged or is no weight file: {error}") from None
    except Exception as error:  # weights_only refuses pickled code with UnpicklingError
        raise ValueError(f"{path} was refused: {str(error).splitlines()[0]}. Save it as safetensors") from None
