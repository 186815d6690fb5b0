"""Hugging Face folders <-> our parameters. One table row per parameter and family; everything else follows from them.

BERT's token_type_embeddings[0] is folded into the position embeddings on the way in (single segments use no other row),
so that a student, which has no token types, starts from exactly the teacher's embeddings.
"""

import dataclasses
import json
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from model.bert import MaskedLanguageModel
from model.config import EncoderConfig, read_json
from model.kernels.choice import Kernels

WEIGHT_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)

SAFE_TORCH = "2.10"
"""From here on a crafted file cannot get around weights_only: CVE-2025-32434 (2.6) and CVE-2026-24747 (2.10) are closed."""


class Family(NamedTuple):
    """How one published architecture names things. `{i}` is the layer, `*` stands for weight and bias."""

    model_type: str
    class_name: str
    prefix: str
    config: dict[str, str]
    """Our `EncoderConfig` field -> key of config.json."""
    names: dict[str, tuple[str, ...]]
    """Our parameter -> theirs; several are stacked along rows (query, key, value)."""
    token_types: str
    """Their token type embedding; empty where the family has none."""


BERT = Family(
    model_type="bert",
    class_name="BertForMaskedLM",
    prefix="bert.",
    config={
        "vocab_size": "vocab_size",
        "hidden_size": "hidden_size",
        "num_layers": "num_hidden_layers",
        "num_heads": "num_attention_heads",
        "intermediate_size": "intermediate_size",
        "max_positions": "max_position_embeddings",
        "layer_norm_eps": "layer_norm_eps",
        "hidden_dropout": "hidden_dropout_prob",
        "attention_dropout": "attention_probs_dropout_prob",
        "initializer_range": "initializer_range",
    },
    names={
        "encoder.word.weight": ("bert.embeddings.word_embeddings.weight",),
        "encoder.position.weight": ("bert.embeddings.position_embeddings.weight",),
        "encoder.norm.*": ("bert.embeddings.LayerNorm.*",),
        "encoder.layers.{i}.qkv.*": (
            "bert.encoder.layer.{i}.attention.self.query.*",
            "bert.encoder.layer.{i}.attention.self.key.*",
            "bert.encoder.layer.{i}.attention.self.value.*",
        ),
        "encoder.layers.{i}.attention_output.*": ("bert.encoder.layer.{i}.attention.output.dense.*",),
        "encoder.layers.{i}.attention_norm.*": ("bert.encoder.layer.{i}.attention.output.LayerNorm.*",),
        "encoder.layers.{i}.ffn_in.*": ("bert.encoder.layer.{i}.intermediate.dense.*",),
        "encoder.layers.{i}.ffn_out.*": ("bert.encoder.layer.{i}.output.dense.*",),
        "encoder.layers.{i}.ffn_norm.*": ("bert.encoder.layer.{i}.output.LayerNorm.*",),
        "head.transform.*": ("cls.predictions.transform.dense.*",),
        "head.norm.*": ("cls.predictions.transform.LayerNorm.*",),
        "head.bias": ("cls.predictions.bias",),
    },
    token_types="bert.embeddings.token_type_embeddings.weight",
)

DISTILBERT = Family(
    model_type="distilbert",
    class_name="DistilBertForMaskedLM",
    prefix="distilbert.",
    config={
        "vocab_size": "vocab_size",
        "hidden_size": "dim",
        "num_layers": "n_layers",
        "num_heads": "n_heads",
        "intermediate_size": "hidden_dim",
        "max_positions": "max_position_embeddings",
        "hidden_dropout": "dropout",
        "attention_dropout": "attention_dropout",
        "initializer_range": "initializer_range",
    },
    names={
        "encoder.word.weight": ("distilbert.embeddings.word_embeddings.weight",),
        "encoder.position.weight": ("distilbert.embeddings.position_embeddings.weight",),
        "encoder.norm.*": ("distilbert.embeddings.LayerNorm.*",),
        "encoder.layers.{i}.qkv.*": (
            "distilbert.transformer.layer.{i}.attention.q_lin.*",
            "distilbert.transformer.layer.{i}.attention.k_lin.*",
            "distilbert.transformer.layer.{i}.attention.v_lin.*",
        ),
        "encoder.layers.{i}.attention_output.*": ("distilbert.transformer.layer.{i}.attention.out_lin.*",),
        "encoder.layers.{i}.attention_norm.*": ("distilbert.transformer.layer.{i}.sa_layer_norm.*",),
        "encoder.layers.{i}.ffn_in.*": ("distilbert.transformer.layer.{i}.ffn.lin1.*",),
        "encoder.layers.{i}.ffn_out.*": ("distilbert.transformer.layer.{i}.ffn.lin2.*",),
        "encoder.layers.{i}.ffn_norm.*": ("distilbert.transformer.layer.{i}.output_layer_norm.*",),
        "head.transform.*": ("vocab_transform.*",),
        "head.norm.*": ("vocab_layer_norm.*",),
        "head.bias": ("vocab_projector.bias",),
    },
    token_types="",
)

FAMILIES = {family.model_type: family for family in (BERT, DISTILBERT)}

# In published checkpoints and of no use here: pooler, next-sentence head, the tied decoder, constant buffers.
HARMLESS = (
    "pooler.",
    "cls.seq_relationship.",
    "cls.predictions.decoder.",
    "vocab_projector.weight",
    "position_ids",
    "token_type_embeddings",
)

DISTILBERT_NORM_EPS = 1e-12  # a constant of that architecture, not in its config.json


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
        folder = Path(snapshot_download(name, allow_patterns=["*.json", "vocab.txt", "model*.safetensors"]))
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
    path = folder / "config.json"
    if not path.is_file():
        raise FileNotFoundError(f"no config.json in {folder}: not a Hugging Face model folder")
    return parse_config(read_json(path), str(path))


def parse_config(raw: dict, source: str) -> tuple[EncoderConfig, Family]:
    """The dictionary of a config.json; `source` names it in errors."""
    family = FAMILIES.get(raw.get("model_type", ""))
    if family is None:
        raise ValueError(
            f"{source}: model_type {raw.get('model_type')!r} is not supported (supported: {', '.join(FAMILIES)})"
        )
    activation = raw.get("hidden_act", raw.get("activation", "gelu"))
    if activation != "gelu":
        raise ValueError(f"{source}: activation {activation!r} is not supported, only 'gelu'")
    if raw.get("position_embedding_type", "absolute") != "absolute" or raw.get("is_decoder"):
        raise ValueError(f"{source}: only bidirectional encoders with learned absolute positions are supported")
    missing = [key for key in ("vocab_size", family.config["hidden_size"]) if key not in raw]
    if missing:
        raise ValueError(f"{source}: missing {', '.join(missing)}")
    values = {ours: raw[key] for ours, key in family.config.items() if key in raw}
    kinds = {field.name: (int,) if field.type is int else (int, float) for field in dataclasses.fields(EncoderConfig)}
    wrong = [
        f"{family.config[ours]} is {values[ours]!r:.100}" for ours in values if type(values[ours]) not in kinds[ours]
    ]
    if wrong:
        raise ValueError(f"{source}: {', '.join(wrong)}: not the kind of number expected")
    return EncoderConfig(**values), family


def load_model(folder: Path, kernels: Kernels | None = None) -> MaskedLanguageModel:
    """A masked language model from a BERT or DistilBERT folder, in fp32 on the CPU, in evaluation mode.

    Raises:
        FileNotFoundError: no weights there.
        ValueError: keys missing, unexpected or of another shape (all are named), or no masked-LM head.
    """
    config, family = read_config(folder)
    published = _normalise_names(_read_weights(folder), family)
    with torch.device("meta"):
        model = MaskedLanguageModel(config, kernels)
    wanted = {name: tuple(p.shape) for name, p in model.state_dict().items()}
    weights, unexpected = _from_published(published, family, config, folder)
    wrong = [
        f"{n} {tuple(weights[n].shape)}, expected {wanted[n]}" for n in wanted if tuple(weights[n].shape) != wanted[n]
    ]
    if wrong or unexpected:
        raise ValueError(f"{folder} does not fit its config.json: wrong shape: {wrong}; unexpected: {unexpected}")
    model.load_state_dict(weights, assign=True)
    return model.eval()


def save_model(
    model: MaskedLanguageModel, folder: Path, model_type: str, weights: dict[str, Tensor], pad_token_id: int = 0
) -> None:
    """Write config.json and model.safetensors such that `transformers` loads the folder.

    `weights` are the values to write by our parameter names (under ZeRO the engine gathers fp32 masters; otherwise
    `model.state_dict()`). A BERT folder gets zero token types: ours are folded into the positions.
    """
    family, config = FAMILIES[model_type], model.config
    check_layout(config, model_type)
    folder.mkdir(parents=True, exist_ok=True)
    published: dict[str, Tensor] = {}
    for ours, theirs in expand_names(family, config.num_layers):
        value = weights[ours].detach().to("cpu", torch.float32)
        if ours in ("encoder.word.weight", "head.bias"):
            value = value[: config.vocab_size]
        for name, part in zip(theirs, value.chunk(len(theirs)), strict=True):
            published[name] = part.clone()
    raw = {key: getattr(config, ours) for ours, key in family.config.items()}
    raw |= {
        "model_type": model_type,
        "architectures": [family.class_name],
        "pad_token_id": pad_token_id,
        "dtype": "float32",
    }
    if family.token_types:
        published[family.token_types] = torch.zeros(2, config.hidden_size)
        raw |= {"hidden_act": "gelu", "type_vocab_size": 2}
    else:
        raw |= {"activation": "gelu", "sinusoidal_pos_embds": False, "tie_weights_": True}
    save_file(published, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(raw, indent=2) + "\n", encoding="utf-8")


def check_layout(config: EncoderConfig, model_type: str) -> None:
    """Can a model of this shape be saved in that layout? Asked before training, not after."""
    if model_type == "distilbert" and config.layer_norm_eps != DISTILBERT_NORM_EPS:
        raise ValueError(
            f"the teacher's layer_norm_eps is {config.layer_norm_eps}, DistilBERT's layout fixes it at "
            f"{DISTILBERT_NORM_EPS}: its student could not be saved so that transformers computes the same"
        )


def expand_names(family: Family, num_layers: int) -> list[tuple[str, tuple[str, ...]]]:
    """The table with `{i}` and `*` written out."""
    rows = []
    for ours, theirs in family.names.items():
        for suffix in ("weight", "bias") if "*" in ours else ("",):
            for i in range(num_layers) if "{i}" in ours else (0,):
                fill = [name.replace("{i}", str(i)).replace("*", suffix) for name in (ours, *theirs)]
                rows.append((fill[0], tuple(fill[1:])))
    return rows


def _from_published(
    published: dict[str, Tensor], family: Family, config: EncoderConfig, folder: Path
) -> tuple[dict[str, Tensor], list[str]]:
    rows = expand_names(family, config.num_layers)
    missing = [name for _, theirs in rows for name in theirs if name not in published]
    if any(name.startswith(("cls.", "vocab_")) for name in missing):
        raise ValueError(
            f"{folder} has no masked-LM head (missing {', '.join(n for n in missing if n.startswith(('cls.', 'vocab_')))}): "
            "distillation needs a teacher that predicts words, saved by "
            f"{family.class_name}, not only its encoder or another head"
        )
    if missing:
        raise ValueError(f"{folder} lacks weights its config.json promises: {', '.join(missing)}")
    used = {name for _, theirs in rows for name in theirs}
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
        if name == "cls.predictions.decoder.bias" and "cls.predictions.bias" not in published:
            name = "cls.predictions.bias"
        renamed[name] = value
    return renamed


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
