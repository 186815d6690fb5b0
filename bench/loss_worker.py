"""One process of `bench.gpu`: the triple loss alone, from the encoders' outputs to the gradients of features and decoder.

    python -m bench.loss_worker '{"size": "small", "sequences": 8, "length": 128, "repeats": 3}'

Prints one line of JSON. Ours beside the eager loss of bench.step_hugging_face, as it is and compiled. A loss that fails,
for example for want of memory, has its error in the place of its time.
"""

import json
import sys
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.step_hugging_face import IGNORED_LABEL, eager_triple_loss
from bench.step_worker import make_batch
from bench.workload import Workload
from data.batch import Batch
from model.bert import Prediction
from model.config import ObjectiveConfig
from model.kernels.vocab_loss import Decoder
from model.objective import TripleLoss
from training.metrics import Stopwatch, peak_memory_bytes


class Inputs:
    """Features and projections of both models in bf16; only the student's take gradients."""

    def __init__(self, workload: Workload, device: torch.device) -> None:
        config = workload.student
        generator = torch.Generator().manual_seed(0)

        def draw(*shape: int, scale: float = 1.0) -> Tensor:
            return (scale * torch.randn(*shape, generator=generator)).to(device, torch.bfloat16)

        tokens, width = workload.num_tokens, config.hidden_size
        self.teacher_features = draw(tokens, width)
        self.features = (self.teacher_features + 0.1 * draw(tokens, width)).requires_grad_()
        self.weight = draw(config.padded_vocab_size, width, scale=0.05).requires_grad_()
        self.bias = torch.zeros(config.padded_vocab_size, device=device, dtype=torch.bfloat16, requires_grad=True)
        self.vocab_size = config.vocab_size
        self.shape = (workload.sequences, workload.length)
        self.batch: Batch = make_batch(workload).to(device)
        self.labels = torch.full((tokens,), IGNORED_LABEL, device=device)
        self.labels[self.batch.masked_positions] = self.batch.masked_labels
        self.attention_mask = torch.ones(self.shape, dtype=torch.int64, device=device)

    def ours(self) -> Tensor:
        batch = self.batch
        losses = TripleLoss(ObjectiveConfig())(
            Prediction(self.features, self.features, Decoder(self.weight, self.bias, self.vocab_size)),
            Prediction(
                self.teacher_features,
                self.teacher_features,
                Decoder(self.weight.detach(), self.bias.detach(), self.vocab_size),
            ),
            batch.masked_positions,
            batch.masked_labels,
            attended=batch.num_tokens,
            masked=batch.masked_positions.shape[0],
        )
        return losses.total

    def eager(self) -> Tensor:
        """Logits in bf16, softmaxes in fp32, as CUDA's autocast has it."""
        weight, bias = self.weight[: self.vocab_size], self.bias[: self.vocab_size]
        with torch.no_grad():
            teacher_logits = F.linear(self.teacher_features, weight, bias).float()
        logits = F.linear(self.features, weight, bias).float()
        labels = self.labels.view(self.shape)
        return eager_triple_loss(
            logits.unflatten(0, self.shape),
            teacher_logits.unflatten(0, self.shape),
            self.features.unflatten(0, self.shape),
            self.teacher_features.unflatten(0, self.shape),
            self.attention_mask,
            labels,
            ObjectiveConfig(),
        )

    def clear(self) -> None:
        for tensor in (self.features, self.weight, self.bias):
            tensor.grad = None


def measure(
    name: str, loss: Callable[[], Tensor], inputs: Inputs, repeats: int, device: torch.device
) -> dict[str, Any]:
    """Best of `repeats` forward and backward passes after one that warms up."""
    watch, best = Stopwatch(device), float("inf")
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    for number in range(1 + repeats):
        with watch():
            loss().backward()
        seconds = watch.take()
        best = min(best, seconds) if number else best
        inputs.clear()
    return {"loss": name, "ms": 1000 * best, "peak_gb": peak_memory_bytes(device) / 1e9}


def main(size: str, sequences: int, length: int, repeats: int) -> None:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    inputs = Inputs(Workload(variant="ours", size=size, length=length, sequences=sequences, updates=0), device)
    losses = {
        "distillery, chunked": inputs.ours,
        "eager": inputs.eager,
        "eager, compiled": torch.compile(inputs.eager, dynamic=False),
    }
    rows: list[dict[str, Any]] = []
    for name, loss in losses.items():
        try:
            rows.append(measure(name, loss, inputs, repeats, device))
        except Exception as error:  # the others are still worth having
            rows.append({"loss": f"{name}: {type(error).__name__}: {str(error)[:200]}", "ms": 0.0, "peak_gb": 0.0})
            inputs.clear()
    print(json.dumps({"rows": rows}))


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
