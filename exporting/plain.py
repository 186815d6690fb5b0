"""The one graph that every format is exported from: a student's inference in plain torch operations.

transformers' models build their attention masks in ways that exporters stumble over, and give each layer the same heads.
Here a layer has the heads that are left of it. Equal to transformers' model for inputs padded on the right.
Shapes: B inputs, L tokens, H width, A heads of a layer, D width of a head, V vocabulary, C outputs of a task.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.families import DISTILBERT_NORM_EPS, FAMILIES, Family, expand_names
from model.pruned_heads import PRUNED_HEADS, pruned_heads

__all__ = ["PRUNED_HEADS", "PlainModel", "plain_model", "pruned_heads", "sdpa"]

Attention = Callable[[Tensor, Tensor, Tensor, Tensor, int], Tensor]
"""query, key, value (B, L, A * D), mask (B, L) of int64, A -> (B, L, A * D)."""


def sdpa(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, num_heads: int) -> Tensor:
    """torch's scaled dot product attention; mask 1 for tokens, 0 for padding."""
    q, k, v = (x.unflatten(-1, (num_heads, -1)).transpose(1, 2) for x in (query, key, value))  # (B, A, L, D)
    mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask.bool()[:, None, None, :])
    return mixed.transpose(1, 2).flatten(2)


class Shape(NamedTuple):
    """What the sizes of a model are, beside those its weights tell."""

    hidden_size: int
    head_dim: int
    num_heads: tuple[int, ...]
    """Of each layer."""
    num_positions: int
    """Tokens of the longest input."""
    norm_eps: float


class PlainLayer(nn.Module):
    """Attention and feed-forward network, each with its residual and norm (post-norm, as BERT has them)."""

    def __init__(self, shape: Shape, num_heads: int, intermediate_size: int) -> None:
        super().__init__()
        width, mixed = shape.hidden_size, num_heads * shape.head_dim
        self.num_heads = num_heads
        self.query, self.key, self.value = (nn.Linear(width, mixed) for _ in range(3))
        self.attention_output = nn.Linear(mixed, width)
        self.attention_norm = nn.LayerNorm(width, eps=shape.norm_eps)
        self.ffn_in = nn.Linear(width, intermediate_size)
        self.ffn_out = nn.Linear(intermediate_size, width)
        self.ffn_norm = nn.LayerNorm(width, eps=shape.norm_eps)

    def forward(self, hidden: Tensor, mask: Tensor, attention: Attention) -> Tensor:  # (B, L, H), (B, L) -> (B, L, H)
        mixed = attention(self.query(hidden), self.key(hidden), self.value(hidden), mask, self.num_heads)
        hidden = self.attention_norm(hidden + self.attention_output(mixed))
        return self.ffn_norm(hidden + self.ffn_out(F.gelu(self.ffn_in(hidden))))


class Encoder(nn.Module):
    """Token ids -> last hidden states."""

    def __init__(self, shape: Shape, vocab_size: int, intermediate_size: int, num_token_types: int) -> None:
        super().__init__()
        self.word = nn.Embedding(vocab_size, shape.hidden_size)
        self.position = nn.Embedding(shape.num_positions, shape.hidden_size)
        self.token_type = nn.Embedding(num_token_types, shape.hidden_size) if num_token_types > 1 else None
        self.norm = nn.LayerNorm(shape.hidden_size, eps=shape.norm_eps)
        self.layers = nn.ModuleList(PlainLayer(shape, heads, intermediate_size) for heads in shape.num_heads)

    def forward(self, ids: Tensor, mask: Tensor, types: Tensor | None, attention: Attention) -> Tensor:
        positions = torch.arange(ids.shape[1], device=ids.device)
        hidden = self.word(ids) + self.position(positions)
        if self.token_type is not None:
            assert types is not None, "a model with token types reads them"
            hidden = hidden + self.token_type(types)
        hidden = self.norm(hidden)
        for layer in self.layers:
            hidden = layer(hidden, mask, attention)
        return hidden  # (B, L, H)


class WordHead(nn.Module):
    """Masked language modelling; the projection is the word embedding itself."""

    output_names = ("logits",)

    def __init__(self, word: nn.Embedding, norm_eps: float) -> None:
        super().__init__()
        width = word.embedding_dim
        self.transform = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width, eps=norm_eps)
        self.decoder = nn.Linear(width, word.num_embeddings)
        self.decoder.weight = word.weight

    def forward(self, hidden: Tensor) -> tuple[Tensor, ...]:
        return (self.decoder(self.norm(F.gelu(self.transform(hidden)))),)  # (B, L, V)


class ClassHead(nn.Module):
    """Classes or a number, from the first token."""

    output_names = ("logits",)

    def __init__(self, width: int, num_outputs: int, activation: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.dense = nn.Linear(width, width)
        self.out = nn.Linear(width, num_outputs)
        self.activation = activation

    def forward(self, hidden: Tensor) -> tuple[Tensor, ...]:
        return (self.out(self.activation(self.dense(hidden[:, 0]))),)  # (B, C)


class SpanHead(nn.Module):
    """Where an answer begins and ends."""

    output_names = ("start_logits", "end_logits")

    def __init__(self, width: int) -> None:
        super().__init__()
        self.out = nn.Linear(width, 2)

    def forward(self, hidden: Tensor) -> tuple[Tensor, ...]:
        start, end = self.out(hidden).unbind(-1)
        return start, end  # (B, L) each


class PlainModel(nn.Module):
    """A student with its head. Inputs `input_names`, all (B, L) of int64; outputs a tuple, `output_names`."""

    def __init__(self, encoder: Encoder, head: nn.Module, shape: Shape, attention: Attention = sdpa) -> None:
        super().__init__()
        self.encoder, self.head, self.shape, self.attention = encoder, head, shape, attention

    @property
    def input_names(self) -> tuple[str, ...]:
        types = () if self.encoder.token_type is None else ("token_type_ids",)
        return ("input_ids", "attention_mask", *types)

    @property
    def output_names(self) -> tuple[str, ...]:
        return self.head.output_names

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        return self.head(self.encoder(input_ids, attention_mask, token_type_ids, self.attention))


def plain_model(model: nn.Module, attention: Attention = sdpa) -> PlainModel:
    """Of one of transformers' masked LMs, sequence classifiers or question answerers; fp32, evaluation mode.

    The weights are copies. Heads that its configuration names under `PRUNED_HEADS` are left out.
    Errors: ValueError for another architecture or head.
    """
    config: Any = model.config
    family = FAMILIES.get(config.model_type)
    if family is None:
        raise ValueError(f"a {config.model_type} is not exported, only {', '.join(FAMILIES)}")
    published = {name: value.detach().float().clone() for name, value in model.state_dict().items()}
    _check_head(model, family, published)
    pruned = pruned_heads(config)
    all_heads = config.num_attention_heads
    kept = [
        [head for head in range(all_heads) if head not in pruned.get(i, ())] for i in range(config.num_hidden_layers)
    ]
    first = config.pad_token_id + 1 if family.counts_from_padding else 0
    shape = Shape(
        hidden_size=config.hidden_size,
        head_dim=config.hidden_size // all_heads,
        num_heads=tuple(map(len, kept)),
        num_positions=config.max_position_embeddings - first,
        norm_eps=getattr(config, "layer_norm_eps", DISTILBERT_NORM_EPS),
    )
    num_types = getattr(config, "type_vocab_size", 0) if family.token_types else 0
    intermediate = config.hidden_dim if family.model_type == "distilbert" else config.intermediate_size
    encoder = Encoder(shape, config.vocab_size, intermediate, num_types)
    _load(encoder, _encoder_weights(family, published, kept, shape.head_dim, first))
    head = _head(model, family, encoder, published)
    return PlainModel(encoder, head, shape, attention).eval().requires_grad_(False)


def _encoder_weights(
    family: Family, published: Mapping[str, Tensor], kept: Sequence[Sequence[int]], head_dim: int, first: int
) -> dict[str, Tensor]:
    weights: dict[str, Tensor] = {}
    for ours, theirs in expand_names(family, len(kept)):
        if not ours.startswith("encoder."):
            continue
        name = ours.removeprefix("encoder.")
        parts = [published[their] for their in theirs]
        if ".qkv." in name or name.endswith("attention_output.weight"):
            heads = torch.tensor(kept[int(name.split(".")[1])])
            columns = (heads[:, None] * head_dim + torch.arange(head_dim)).flatten()
        if ".qkv." in name:
            for own, part in zip(("query", "key", "value"), parts, strict=True):
                weights[name.replace("qkv", own)] = part[columns]
        else:
            weights[name] = parts[0][:, columns] if name.endswith("attention_output.weight") else parts[0]
    weights["position.weight"] = weights["position.weight"][first:]
    if family.token_types:
        types = published[family.token_types]
        if len(types) > 1:
            weights["token_type.weight"] = types
        else:
            weights["position.weight"] = weights["position.weight"] + types[0]
    return weights


def _head(model: nn.Module, family: Family, encoder: Encoder, published: Mapping[str, Tensor]) -> nn.Module:
    width = encoder.word.embedding_dim
    if f"{family.decoder}.weight" in published:
        head: nn.Module = WordHead(encoder.word, encoder.norm.eps)
        names = {
            f"{ours.removeprefix('head.')}": theirs[0] for ours, theirs in expand_names(family, 0) if "head." in ours
        }
        weights = {("decoder.bias" if ours == "bias" else ours): published[theirs] for ours, theirs in names.items()}
        weights["decoder.weight"] = encoder.word.weight
        if not torch.equal(published[f"{family.decoder}.weight"], encoder.word.weight):
            raise ValueError("the vocabulary projection is not the word embedding: only tied models are exported")
    elif "qa_outputs.weight" in published:
        head = SpanHead(width)
        weights = {f"out.{part}": published[f"qa_outputs.{part}"] for part in ("weight", "bias")}
    else:
        dense, out, activation = CLASS_HEADS[family.model_type]
        head = ClassHead(width, len(published[f"{out}.weight"]), activation)
        weights = {f"dense.{part}": published[f"{dense}.{part}"] for part in ("weight", "bias")}
        weights |= {f"out.{part}": published[f"{out}.{part}"] for part in ("weight", "bias")}
    _load(head, weights)
    return head


def _check_head(model: nn.Module, family: Family, published: Mapping[str, Tensor]) -> None:
    dense, out, _ = CLASS_HEADS[family.model_type]
    known = ({f"{family.decoder}.weight"}, {"qa_outputs.weight"}, {f"{dense}.weight", f"{out}.weight"})
    if not any(names <= published.keys() for names in known):
        raise ValueError(
            f"a {type(model).__name__} has no head that is exported: masked LM, sequence classification or regression, "
            "question answering"
        )


CLASS_HEADS = {
    "bert": ("bert.pooler.dense", "classifier", torch.tanh),
    "distilbert": ("pre_classifier", "classifier", F.relu),
    "roberta": ("classifier.dense", "classifier.out_proj", torch.tanh),
    "xlm-roberta": ("classifier.dense", "classifier.out_proj", torch.tanh),
}
"""model_type -> the dense layer on the first token, the projection to the outputs, the activation between them."""


def _load(module: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Every one of the module's parameters, and nothing else. A tied weight stays tied."""
    own = dict(module.named_parameters())
    assert own.keys() == weights.keys(), f"{own.keys() ^ weights.keys()}"
    with torch.no_grad():
        for name, value in weights.items():
            if own[name] is not value:
                own[name].copy_(value)
