"""Small models with pruned heads as programs that take one input at a time, against transformers' own models."""

import copy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import transformers
from torch import nn

from exporting.plain import PRUNED_HEADS, PlainModel, plain_model
from exporting.variant import Batch, Outputs, Request, Run

VOCABULARY, WIDTH, HEAD_WIDTH, POSITIONS = 500, 64, 16, 48
PRUNED = {0: [1], 1: [0, 2, 3]}
SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": WIDTH,
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "intermediate_size": 96,
}


@dataclass(frozen=True, kw_only=True)
class Small:
    """One of transformers' models, and without its pruned heads."""

    model: nn.Module
    plain: PlainModel


def small(model: nn.Module) -> Small:
    marked = copy.deepcopy(model)
    layers = range(marked.config.num_hidden_layers)
    setattr(marked.config, PRUNED_HEADS, {str(layer): PRUNED[layer] for layer in layers})
    return Small(model=model, plain=plain_model(marked))


def request(given: Small, folder: Path, *precisions: str) -> Request:
    return Request(
        plain=given.plain,
        folder=folder,
        precisions=precisions,
        max_length=POSITIONS,
        pad_id=given.model.config.pad_token_id,
        calibration=[],
        calibration_source="",
        opset=18,
    )


def make_masked_lm(num_layers: int) -> nn.Module:
    config = transformers.DistilBertConfig(
        vocab_size=VOCABULARY,
        dim=WIDTH,
        n_heads=4,
        n_layers=num_layers,
        hidden_dim=96,
        max_position_embeddings=POSITIONS,
    )
    model = make(transformers.DistilBertForMaskedLM, config)
    zero_heads([layer.attention.out_lin for layer in model.distilbert.transformer.layer])
    return model


def make_spans() -> nn.Module:
    config = transformers.BertConfig(**SIZES, max_position_embeddings=POSITIONS)
    model = make(transformers.BertForQuestionAnswering, config)
    zero_heads([layer.attention.output.dense for layer in model.bert.encoder.layer])
    return model


def make_classes() -> nn.Module:
    config = transformers.RobertaConfig(
        **SIZES, max_position_embeddings=POSITIONS + 2, type_vocab_size=1, pad_token_id=1, num_labels=3
    )
    model = make(transformers.RobertaForSequenceClassification, config)
    zero_heads([layer.attention.output.dense for layer in model.roberta.encoder.layer])
    return model


@torch.no_grad()
def zero_heads(outputs: list[nn.Linear]) -> None:
    """What transformers computes with then is what a model without `PRUNED` heads computes."""
    for layer, output in enumerate(outputs):
        for head in PRUNED[layer]:
            output.weight[:, head * HEAD_WIDTH : (head + 1) * HEAD_WIDTH] = 0


def make(kind: type, config: transformers.PretrainedConfig) -> nn.Module:
    torch.manual_seed(3)
    model = kind(copy.deepcopy(config)).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # biases start at zero, norms at one: a swap would not be seen
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model


def batch_of(given: Small, *lengths: int) -> Batch:
    """Padded on the right."""
    draw = np.random.default_rng(sum(lengths))
    mask = (np.arange(max(lengths)) < np.array(lengths)[:, None]).astype(np.int64)
    ids = np.where(mask > 0, draw.integers(4, VOCABULARY, mask.shape), given.model.config.pad_token_id)
    types = (np.arange(max(lengths)) > 2).astype(np.int64) * mask
    batch = {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}
    return {name: batch[name] for name in given.plain.input_names}


def expected(given: Small, batch: Batch) -> Outputs:
    with torch.no_grad():
        outputs = given.model(**{name: torch.from_numpy(value) for name, value in batch.items()})
    return tuple(outputs[name].numpy() for name in given.plain.output_names)


def largest_difference(given: Small, run: Run) -> float:
    """Over lengths 1, middle, greatest, and a padded batch; at real tokens."""
    largest = 0.0
    for lengths in ((1,), (2,), (21,), (POSITIONS,), (5, 30, 1), (3,)):
        batch = batch_of(given, *lengths)
        for found, right in zip(run(batch), expected(given, batch), strict=True):
            assert found.shape == right.shape
            assert found.dtype == np.float32
            for row, length in enumerate(lengths):
                tokens = slice(length if right.shape[1] == max(lengths) else None)
                largest = max(largest, float(np.abs(found[row, tokens] - right[row, tokens]).max()))
    return largest


def cosine(found: np.ndarray, right: np.ndarray) -> float:
    return float((found * right).sum() / np.linalg.norm(found) / np.linalg.norm(right))
