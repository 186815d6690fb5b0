"""Importance against finite differences, and the choice that follows from it."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from exporting.plain import PlainModel, plain_model
from model.pruned_heads import attention_output, pruned_heads
from pruning.heads import choose_heads, head_importance, heads_left, num_gone, remove_heads
from tests.pruning.models import HEADS, LAYERS, WIDTH, batch, make

DIM = WIDTH // HEADS
Batch = tuple[dict[str, Tensor], Tensor]
BATCHES: list[Batch] = [
    (batch((9, 6, 3), seed=1), torch.tensor([0, 1, 1])),
    (batch((4, 8), seed=2), torch.tensor([1, 0])),
]


def columns(model: nn.Module, layer: int, head: int) -> Tensor:
    return attention_output(model, layer).weight[:, head * DIM : (head + 1) * DIM]


def plain_loss(plain: PlainModel, given: Batch) -> Tensor:
    inputs, labels = given
    types = [torch.zeros_like(inputs["input_ids"])] if "token_type_ids" in plain.input_names else []
    return F.cross_entropy(plain(*inputs.values(), *types)[0], labels, reduction="sum")


def importance_of(model: nn.Module, batches: list[Batch] = BATCHES) -> list[dict[int, float]]:
    plain, left = plain_model(model), heads_left(model.config)
    return head_importance(plain.double(), left, batches, lambda given: len(given[1]), plain_loss)


@pytest.mark.parametrize(("family", "head"), [("distilbert", "SequenceClassification"), ("bert", "QuestionAnswering")])
@torch.no_grad()
def test_importance_is_what_finite_differences_of_transformers_model_give(family: str, head: str) -> None:
    """In float64: what a head adds is scaled by 1 +- e, one input and one head at a time."""
    model = make(family, head).double()
    step, expected = 1e-5, torch.zeros(LAYERS, HEADS, dtype=torch.float64)

    def loss(inputs: dict[str, Tensor], label: Tensor) -> float:
        output: Any = model(**inputs)
        logits = output.logits if head == "SequenceClassification" else output.start_logits
        return float(F.cross_entropy(logits, label[None]))

    for inputs, labels in BATCHES:
        for row, label in enumerate(labels):
            length = int(inputs["attention_mask"][row].sum())
            one = {name: value[row : row + 1, :length] for name, value in inputs.items()}
            for layer in range(LAYERS):
                for number in range(HEADS):
                    scaled, before = columns(model, layer, number), columns(model, layer, number).clone()
                    scaled.copy_(before * (1 + step))
                    above = loss(one, label)
                    scaled.copy_(before * (1 - step))
                    expected[layer, number] += abs(above - loss(one, label)) / (2 * step) / 5
                    scaled.copy_(before)
    expected /= expected.norm(dim=1, keepdim=True)

    def masked(plain: PlainModel, given: Batch) -> Tensor:
        if head == "SequenceClassification":
            return plain_loss(plain, given)
        inputs, labels = given
        starts = plain(*inputs.values(), torch.zeros_like(inputs["input_ids"]))[0]
        starts = starts.masked_fill(~inputs["attention_mask"].bool(), -torch.inf)
        return F.cross_entropy(starts, labels, reduction="sum")

    with torch.enable_grad():
        left = heads_left(model.config)
        plain = plain_model(model).double()
        found = head_importance(plain, left, BATCHES, lambda given: len(given[1]), masked)
    given = torch.tensor([[layer[number] for number in range(HEADS)] for layer in found], dtype=torch.float64)
    # The graph is made in fp32: its weights are rounded once.
    torch.testing.assert_close(given, expected, rtol=2e-5, atol=2e-6)


def test_a_useless_head_is_the_first_to_go() -> None:
    model = make("distilbert", "SequenceClassification")
    with torch.no_grad():  # it mixes values that are all the same, zero
        values = model.distilbert.transformer.layer[1].attention.v_lin
        values.weight[2 * DIM : 3 * DIM], values.bias[2 * DIM : 3 * DIM] = 0, 0
    importance = importance_of(model)
    assert importance[1][2] == 0
    assert choose_heads(importance, model.config, 1) == {1: (2,)}


def test_inputs_do_not_cancel_each_other() -> None:
    """|dL/dxi| of each: the same text under both labels moves a sum of losses hardly, and each of them a lot."""
    model = make("distilbert", "SequenceClassification")
    row = {name: value[:1] for name, value in BATCHES[0][0].items()}
    twice = [({name: value.repeat(2, 1) for name, value in row.items()}, torch.tensor([0, 1]))]
    apart = [(row, torch.tensor([0])), (row, torch.tensor([1]))]
    for one, two in zip(importance_of(model, twice), importance_of(model, apart), strict=True):
        assert one == pytest.approx(two, rel=1e-9)


def test_the_last_head_of_a_layer_stays_and_the_next_one_goes() -> None:
    config = make("bert", "MaskedLM").config
    importance = [{0: 0.1, 1: 0.2, 2: 0.3, 3: 0.4}, {0: 0.9, 1: 0.5, 2: 0.7, 3: 0.6}]
    assert choose_heads(importance, config, 4) == {0: (0, 1, 2), 1: (1,)}
    assert choose_heads(importance, config, num_gone(config, 0.75, "")) == {0: (0, 1, 2), 1: (1, 2, 3)}
    assert choose_heads(importance, config, 0) == {}
    with pytest.raises(ValueError, match=r"--sweep 0.9: 7 of 8 heads gone would leave a layer .* 0.75 can go"):
        num_gone(config, 0.9, "--sweep")


def test_what_is_gone_already_counts_and_is_not_asked_again() -> None:
    model = make("distilbert", "SequenceClassification")
    remove_heads(model, {0: (1, 3)})
    importance = importance_of(model)
    assert [sorted(layer) for layer in importance] == [[0, 2], [0, 1, 2, 3]]
    gone = choose_heads(importance, model.config, 4)
    assert set(gone[0]) >= {1, 3}
    assert sum(map(len, gone.values())) == 4
    with pytest.raises(ValueError, match="2 of 8 heads are gone already"):
        num_gone(model.config, 0.1, "--prune_heads")


@pytest.mark.parametrize("family", ["bert", "distilbert", "roberta"])
@torch.no_grad()
def test_what_is_left_computes_the_same_in_transformers_and_in_the_exported_graph(family: str) -> None:
    model = make(family, "SequenceClassification")
    inputs = batch((9, 5), pad=model.config.pad_token_id)
    whole = model(**inputs).logits
    remove_heads(model, {0: (1, 2), 1: (0,)})
    zeroed = model(**inputs).logits
    assert not torch.allclose(whole, zeroed, atol=1e-3)
    plain = plain_model(model)
    assert plain.shape.num_heads == (2, 3)
    types = [torch.zeros_like(inputs["input_ids"])] if "token_type_ids" in plain.input_names else []
    torch.testing.assert_close(plain(*inputs.values(), *types)[0], zeroed, atol=2e-6, rtol=1e-5)
    remove_heads(model, {})
    assert pruned_heads(model.config) == {}
    assert "distillery" not in str(model.config.to_dict())
