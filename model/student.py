"""The student: the teacher's width, half its depth, started from some of its layers (Sanh et al. 2019)."""

import dataclasses
from collections.abc import Sequence

import torch

from model.bert import MaskedLanguageModel
from model.config import EncoderConfig
from model.kernels.choice import Kernels


def default_layers(num_teacher_layers: int) -> tuple[int, ...]:
    """Half of the teacher's layers, spread evenly from its first to its last.

    12 -> 0,2,4,7,9,11 (the published choice); 24 -> 0,2,4,6,8,10,13,...,23; 6 -> 0,2,5; 4 -> 0,3; 3 and 2 -> 0.
    """
    num_student_layers = max(1, num_teacher_layers // 2)
    if num_student_layers == 1:
        return (0,)
    step = (num_teacher_layers - 1) / (num_student_layers - 1)
    return tuple(round(i * step) for i in range(num_student_layers))


def make_student(
    teacher: MaskedLanguageModel,
    *,
    layers: Sequence[int] = (),
    init: str = "teacher",
    dropout: float = 0.1,
    kernels: Kernels | None = None,
    seed: int = 0,
) -> MaskedLanguageModel:
    """A student in fp32 on the CPU, in training mode.

    Copied: the teacher's `layers` (default `default_layers`), all embeddings and their norm, the masked-LM transform and
    the decoder bias. With init="random" the same shape, BERT's random start, drawn from `seed`.

    Raises:
        ValueError: a layer that the teacher does not have.
    """
    chosen = tuple(layers) or default_layers(teacher.config.num_layers)
    outside = [layer for layer in chosen if not 0 <= layer < teacher.config.num_layers]
    if outside:
        raise ValueError(
            f"--student_layers {','.join(map(str, chosen))}: the teacher has layers 0 to {teacher.config.num_layers - 1}, "
            f"not {', '.join(map(str, outside))}"
        )
    config = dataclasses.replace(
        teacher.config, num_layers=len(chosen), hidden_dropout=dropout, attention_dropout=dropout
    )
    student = make_random(config, kernels=kernels, seed=seed)
    if init == "teacher":
        student.load_state_dict(_chosen_weights(teacher, chosen))
    return student


def make_random(config: EncoderConfig, *, seed: int, kernels: Kernels | None = None) -> MaskedLanguageModel:
    """A model from BERT's random start, the same for the same seed whatever was drawn before."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = MaskedLanguageModel(config, kernels)
        model.initialise(config.initializer_range)
    return model.train()


def _chosen_weights(teacher: MaskedLanguageModel, chosen: Sequence[int]) -> dict[str, torch.Tensor]:
    weights = {k: v.float() for k, v in teacher.state_dict().items() if not k.startswith("encoder.layers.")}
    for new, old in enumerate(chosen):
        for name, value in teacher.encoder.layers[old].state_dict().items():
            weights[f"encoder.layers.{new}.{name}"] = value.float()
    return weights
