"""The whole model and objective by the fused kernels against plain torch."""

import torch
from torch import Tensor

from model.bert import Prediction
from model.config import EncoderConfig, ObjectiveConfig
from model.kernels.choice import Kernels
from model.objective import TripleLoss
from model.student import make_random
from tests.model.helpers import DEVICE, packed, relative_error

CONFIG = EncoderConfig(
    vocab_size=131,
    hidden_size=32,
    num_layers=2,
    num_heads=4,
    intermediate_size=64,
    max_positions=24,
    initializer_range=0.1,
    hidden_dropout=0.0,
    attention_dropout=0.0,
)


def update(kernel: str, dropout: float = 0.0) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss and gradients of one step towards a random teacher, sequences of uneven length."""
    kernels = Kernels(attention="softmax", layer_norm=kernel, activation=kernel, softmax=kernel, vocab_loss=kernel)
    student = make_random(CONFIG, seed=0, kernels=kernels).to(DEVICE)
    teacher = make_random(CONFIG, seed=1, kernels=kernels).to(DEVICE).eval()
    for layer in student.encoder.layers:
        layer.hidden_dropout = layer.attention_dropout = dropout
    token_ids, position_ids, cu_seqlens, longest = packed((9, 3, 5))
    layout = (token_ids.to(DEVICE), position_ids.to(DEVICE), cu_seqlens.to(DEVICE), longest)
    positions = torch.tensor([1, 4, 10], device=DEVICE)
    with torch.no_grad():
        target: Prediction = teacher(*layout)
    losses = TripleLoss(ObjectiveConfig(), kernel)(
        student(*layout), target, positions, positions + 7, attended=17, masked=3
    )
    losses.total.backward()
    return losses.total, {name: p.grad for name, p in student.named_parameters() if p.grad is not None}


def test_losses_and_gradients_agree() -> None:
    (own, own_grads), (plain, plain_grads) = update("triton"), update("torch")
    assert relative_error(own, plain.double()) < 1e-6
    assert own_grads.keys() == plain_grads.keys()
    for name, grad in plain_grads.items():
        if name.endswith("qkv.bias"):  # the key's part is zero but for rounding
            torch.testing.assert_close(own_grads[name], grad, rtol=1e-4, atol=1e-6)
        else:
            assert relative_error(own_grads[name], grad.double()) < 1e-5, name


def test_dropout_follows_the_generator() -> None:
    losses = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        losses.append(update("triton", dropout=0.2)[0].item())
    assert losses[0] == losses[1] != losses[2]
