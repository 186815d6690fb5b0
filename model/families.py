"""How published architectures name what our encoder has: a table row per parameter and family, and what follows from them.

A family's token_type_embeddings[0] is folded into the position embeddings on the way in (single segments use no other row),
so that a student, which has no token types, starts from exactly the teacher's embeddings.
"""

import dataclasses
from typing import NamedTuple

from model.config import EncoderConfig

DISTILBERT_NORM_EPS = 1e-12  # a constant of that architecture, not in its config.json


class Family(NamedTuple):
    """One published architecture. In names `{i}` is the layer, `*` stands for weight and bias."""

    model_type: str
    class_name: str
    student: str
    """model_type of the folder that a student of such a teacher is saved as."""
    config: dict[str, str]
    """Our `EncoderConfig` field -> key of config.json."""
    constants: dict[str, object]
    """What else its config.json says of a model of ours."""
    special_ids: dict[str, tuple[str, int]]
    """Key of config.json -> the token's role, and its id where config.json does not say."""
    names: dict[str, tuple[str, ...]]
    """Our parameter -> theirs; several are stacked along rows (query, key, value)."""
    head: str
    """What the names of its masked-LM head start with, decoder included."""
    decoder: str
    """The vocabulary projection, tied to word embedding and head bias, which repeats them in some checkpoints."""
    token_types: str = ""
    """Their token type embedding; empty where the family has none."""
    num_token_types: int = 0
    counts_from_padding: bool = False
    """Whether position 0 is row padding id + 1 of the position embeddings; max_position_embeddings counts all rows."""


CONFIG = {
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
}


def _encoder_names(prefix: str) -> dict[str, tuple[str, ...]]:
    """BERT's, which RoBERTa took over under another prefix."""
    return {
        "encoder.word.weight": (f"{prefix}.embeddings.word_embeddings.weight",),
        "encoder.position.weight": (f"{prefix}.embeddings.position_embeddings.weight",),
        "encoder.norm.*": (f"{prefix}.embeddings.LayerNorm.*",),
        "encoder.layers.{i}.qkv.*": (
            f"{prefix}.encoder.layer.{{i}}.attention.self.query.*",
            f"{prefix}.encoder.layer.{{i}}.attention.self.key.*",
            f"{prefix}.encoder.layer.{{i}}.attention.self.value.*",
        ),
        "encoder.layers.{i}.attention_output.*": (f"{prefix}.encoder.layer.{{i}}.attention.output.dense.*",),
        "encoder.layers.{i}.attention_norm.*": (f"{prefix}.encoder.layer.{{i}}.attention.output.LayerNorm.*",),
        "encoder.layers.{i}.ffn_in.*": (f"{prefix}.encoder.layer.{{i}}.intermediate.dense.*",),
        "encoder.layers.{i}.ffn_out.*": (f"{prefix}.encoder.layer.{{i}}.output.dense.*",),
        "encoder.layers.{i}.ffn_norm.*": (f"{prefix}.encoder.layer.{{i}}.output.LayerNorm.*",),
    }


BERT = Family(
    model_type="bert",
    class_name="BertForMaskedLM",
    student="distilbert",
    config=CONFIG,
    constants={"hidden_act": "gelu", "type_vocab_size": 2},
    special_ids={"pad_token_id": ("pad", 0)},
    names=_encoder_names("bert")
    | {
        "head.transform.*": ("cls.predictions.transform.dense.*",),
        "head.norm.*": ("cls.predictions.transform.LayerNorm.*",),
        "head.bias": ("cls.predictions.bias",),
    },
    head="cls.predictions.",
    decoder="cls.predictions.decoder",
    token_types="bert.embeddings.token_type_embeddings.weight",
    num_token_types=2,
)

DISTILBERT = Family(
    model_type="distilbert",
    class_name="DistilBertForMaskedLM",
    student="distilbert",
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
    constants={"activation": "gelu", "sinusoidal_pos_embds": False, "tie_weights_": True},
    special_ids={"pad_token_id": ("pad", 0)},
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
    head="vocab_",
    decoder="vocab_projector",
)

ROBERTA = Family(
    model_type="roberta",
    class_name="RobertaForMaskedLM",
    student="roberta",  # DistilRoBERTa is published in its teacher's layout
    config=CONFIG,
    constants={"hidden_act": "gelu", "type_vocab_size": 1},
    special_ids={"pad_token_id": ("pad", 1), "bos_token_id": ("cls", 0), "eos_token_id": ("sep", 2)},
    names=_encoder_names("roberta")
    | {
        "head.transform.*": ("lm_head.dense.*",),
        "head.norm.*": ("lm_head.layer_norm.*",),
        "head.bias": ("lm_head.bias",),
    },
    head="lm_head.",
    decoder="lm_head.decoder",
    token_types="roberta.embeddings.token_type_embeddings.weight",
    num_token_types=1,
    counts_from_padding=True,
)

XLM_ROBERTA = ROBERTA._replace(
    model_type="xlm-roberta", class_name="XLMRobertaForMaskedLM", student="xlm-roberta"
)  # its parameters keep RoBERTa's prefix

FAMILIES = {family.model_type: family for family in (BERT, DISTILBERT, ROBERTA, XLM_ROBERTA)}


def expand_names(family: Family, num_layers: int) -> list[tuple[str, tuple[str, ...]]]:
    """The table with `{i}` and `*` written out."""
    rows = []
    for ours, theirs in family.names.items():
        for suffix in ("weight", "bias") if "*" in ours else ("",):
            for i in range(num_layers) if "{i}" in ours else (0,):
                fill = [name.replace("{i}", str(i)).replace("*", suffix) for name in (ours, *theirs)]
                rows.append((fill[0], tuple(fill[1:])))
    return rows


def parse_config(raw: dict, source: str) -> tuple[EncoderConfig, Family]:
    """The dictionary of a config.json; `source` names it in errors. Refuses what our encoder does not compute."""
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
    fields = {field.name: field for field in dataclasses.fields(EncoderConfig)}
    values = {ours: raw.get(key, fields[ours].default) for ours, key in family.config.items()}
    kinds = {name: (int,) if field.type is int else (int, float) for name, field in fields.items()}
    wrong = [
        f"{family.config[ours]} is {values[ours]!r:.100}" for ours in values if type(values[ours]) not in kinds[ours]
    ]
    if wrong:
        raise ValueError(f"{source}: {', '.join(wrong)}: not the kind of number expected")
    values["max_positions"] -= unused_positions(family, special_ids(raw, family, source))
    if values["max_positions"] < 1:
        raise ValueError(
            f"{source}: max_position_embeddings {raw.get('max_position_embeddings')} leaves no position, because "
            f"{family.class_name} counts from pad_token_id + 1"
        )
    return EncoderConfig(**values), family


def special_ids(raw: dict, family: Family, source: str) -> dict[str, int]:
    """Role (pad, cls, sep) -> token id, those that this family's config.json names."""
    ids = {}
    for key, (role, usual) in family.special_ids.items():
        value = usual if raw.get(key) is None else raw[key]
        if type(value) is not int or value < 0:
            raise ValueError(f"{source}: {key} is {value!r:.100}: a token id is expected")
        ids[role] = value
    return ids


def unused_positions(family: Family, ids: dict[str, int]) -> int:
    """Rows of its position embeddings before that of a sequence's first token."""
    return ids["pad"] + 1 if family.counts_from_padding else 0


def student_layout(config: EncoderConfig, teacher: Family) -> tuple[str, str]:
    """model_type that a student of such a teacher is saved as, and the reason."""
    if teacher.student == "distilbert" and config.layer_norm_eps != DISTILBERT_NORM_EPS:
        return "bert", (
            f"the teacher's layer_norm_eps is {config.layer_norm_eps}, DistilBERT's layout fixes it at {DISTILBERT_NORM_EPS}"
        )
    return teacher.student, f"as students of {teacher.model_type} are published"


def check_layout(config: EncoderConfig, model_type: str) -> None:
    """Can a model of this shape be saved in that layout, so that transformers computes the same?"""
    if model_type == "distilbert" and config.layer_norm_eps != DISTILBERT_NORM_EPS:
        raise ValueError(
            f"layer_norm_eps is {config.layer_norm_eps}, DistilBERT's layout fixes it at {DISTILBERT_NORM_EPS}: "
            "transformers would compute something else. Save it as bert"
        )
