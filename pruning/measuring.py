"""What a model weighs and how fast it is, as the graph that is exported: its pruned heads are not there.

Shapes: B inputs, L tokens.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_model
from torch import Tensor, nn

from evaluation.speed_figures import Figure, summarize
from evaluation.speed_timing import Setting, measure
from exporting.plain import ClassHead, PlainModel, plain_model
from pruning.yardstick import Scores, padded

TOLERANCE = 1e-4
"""Largest difference between transformers' logits and the exported graph's."""
TURN = 16
"""Inputs that a model runs before it is the other's turn."""


@dataclass(frozen=True, kw_only=True)
class Figures:
    """Of one model."""

    parameters: int
    """A decoder that is tied to the word embedding counts once."""
    weights_bytes: int
    """Of a safetensors file of the exported graph in fp32."""
    layers: int
    heads: tuple[int, ...]
    """Of each layer."""
    vocab_size: int
    scores: Scores


def figures_of(model: nn.Module, scores: Scores, folder: Path) -> Figures:
    """`folder` is for a file that is weighed and removed. Errors: OSError."""
    plain = plain_model(model)
    file = folder / "weighed.safetensors"
    save_model(plain, str(file))
    size = file.stat().st_size
    file.unlink()
    return Figures(
        parameters=sum(parameter.numel() for parameter in plain.parameters()),
        weights_bytes=size,
        layers=len(plain.shape.num_heads),
        heads=plain.shape.num_heads,
        vocab_size=plain.encoder.word.num_embeddings,
        scores=scores,
    )


@torch.no_grad()
def largest_difference(model: nn.Module, inputs: list[list[int]]) -> float:
    """Between the logits of transformers' model and those of the exported graph, at positions that are no padding."""
    plain = plain_model(model)
    found = []
    for row in inputs:
        ids, mask = padded([torch.tensor(row), torch.tensor(row[: len(row) // 2 + 1])])
        batch = {"input_ids": ids, "attention_mask": mask}
        if "token_type_ids" in plain.input_names:
            batch["token_type_ids"] = ids % 2  # any
        expected = model(**batch)
        for name, value in zip(plain.output_names, plain(**batch), strict=True):
            difference = (value - expected[name]).abs()
            if not isinstance(plain.head, ClassHead):  # a figure for each token
                difference = difference[mask.bool()]
            found.append(difference.max())
    return float(torch.stack(found).max())  # nan where one is, which Python's max would hide


class WithTypes(nn.Module):
    """A graph as evaluation.speed_timing calls models: token types, where it reads any, are zeros."""

    def __init__(self, plain: PlainModel) -> None:
        super().__init__()
        self.plain = plain

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Any:
        types = [torch.zeros_like(input_ids)] if "token_type_ids" in self.plain.input_names else []
        return self.plain(input_ids, attention_mask, *types)


def latency(models: dict[str, nn.Module], inputs: list[list[int]], rounds: int) -> dict[str, Figure]:
    """ms an input at batch 1, fp32, one thread, models in turns; the first is what the others are compared with.

    All read the same ids, which the smallest vocabulary must have: which words they are costs nothing.
    """
    graphs = {name: plain_model(model) for name, model in models.items()}
    way = Setting(device="cpu", precision="fp32", threads=1, batch_size=1)
    timed = {name: WithTypes(plain).eval() for name, plain in graphs.items()}
    seconds = measure(timed, inputs, [way], rounds=rounds, turn=TURN, pad_id=0)
    return summarize(seconds, len(inputs), len(inputs))[way]
