"""The encoder against transformers, and a packed batch against each of its sequences alone."""

from pathlib import Path

import pytest
import torch
from transformers import BertForMaskedLM, DistilBertConfig, DistilBertForMaskedLM

from model.attention import choose_attention
from model.hub import load_model
from model.kernels.choice import Kernels
from tests.model.helpers import LENGTHS, bert, packed, padded


def largest_difference(folder: Path, reference: torch.nn.Module, backend: str, lengths: tuple[int, ...]) -> float:
    model = load_model(folder, Kernels(attention=backend))
    token_ids, position_ids, cu_seqlens, longest = packed(lengths)
    ids, mask = padded(token_ids, lengths)
    with torch.no_grad():
        ours = model.logits(model(token_ids, position_ids, cu_seqlens, longest).features)
        theirs = reference(input_ids=ids, attention_mask=mask).logits[mask.bool()]
    assert ours.shape == theirs.shape
    return (ours - theirs).abs().max().item()


@pytest.mark.parametrize("backend", ["sdpa", "softmax", "blocked"])
@pytest.mark.parametrize("lengths", [LENGTHS, (9, 9, 9), (24,)], ids=["mixed", "equal", "single"])
def test_bert_logits_equal_transformers(tmp_path: Path, backend: str, lengths: tuple[int, ...]) -> None:
    reference = bert()
    reference.save_pretrained(tmp_path)
    assert largest_difference(tmp_path, reference, backend, lengths) <= 1e-5


@pytest.mark.parametrize("backend", ["sdpa", "softmax", "blocked"])
def test_distilbert_logits_equal_transformers(tmp_path: Path, backend: str) -> None:
    torch.manual_seed(0)
    config = DistilBertConfig(
        vocab_size=131, dim=32, n_layers=2, n_heads=4, hidden_dim=64, max_position_embeddings=24, initializer_range=0.1
    )
    reference = DistilBertForMaskedLM(config).eval()
    reference.save_pretrained(tmp_path)
    assert largest_difference(tmp_path, reference, backend, LENGTHS) <= 1e-5


@pytest.mark.parametrize("backend", ["sdpa", "softmax", "blocked"])
def test_packing_changes_nothing(tmp_path: Path, backend: str) -> None:
    bert().save_pretrained(tmp_path)
    model = load_model(tmp_path, Kernels(attention=backend)).double()
    token_ids, position_ids, cu_seqlens, longest = packed()
    with torch.no_grad():
        together = model(token_ids, position_ids, cu_seqlens, longest).hidden.split(list(LENGTHS))
        for piece, expected in zip(token_ids.split(list(LENGTHS)), together, strict=True):
            alone = model(piece, torch.arange(len(piece)), torch.tensor([0, len(piece)], dtype=torch.int32), len(piece))
            torch.testing.assert_close(alone.hidden, expected, rtol=0, atol=1e-13)


def test_gradients_through_packing_equal_transformers(tmp_path: Path) -> None:
    reference: BertForMaskedLM = bert().double()
    reference.save_pretrained(tmp_path)
    model = load_model(tmp_path).double()
    token_ids, position_ids, cu_seqlens, longest = packed()
    ids, mask = padded(token_ids)
    model.logits(model(token_ids, position_ids, cu_seqlens, longest).features).square().mean().backward()
    reference(input_ids=ids, attention_mask=mask).logits[mask.bool()].square().mean().backward()
    ours, theirs = model.encoder.word.weight.grad, reference.bert.embeddings.word_embeddings.weight.grad
    assert ours is not None
    torch.testing.assert_close(ours[:131], theirs, rtol=1e-5, atol=1e-9)  # the folder holds fp32 weights
    assert ours[131:].abs().max() == 0


def test_predict_at_selects_rows_of_the_head(tmp_path: Path) -> None:
    bert().save_pretrained(tmp_path)
    model = load_model(tmp_path)
    batch, rows = packed(), torch.tensor([1, 9, 20])
    with torch.no_grad():
        torch.testing.assert_close(model(*batch, rows).features, model(*batch).features[rows])


def test_dropout_only_while_training(tmp_path: Path) -> None:
    bert(hidden_dropout_prob=0.5, attention_probs_dropout_prob=0.5).save_pretrained(tmp_path)
    model, batch = load_model(tmp_path), packed()
    with torch.no_grad():
        assert torch.equal(model(*batch).hidden, model(*batch).hidden)
        model.train()
        assert not torch.equal(model(*batch).hidden, model(*batch).hidden)


def test_attention_choice_says_why() -> None:
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    assert choose_attention("auto", cpu, torch.bfloat16, 0.1)[0] == "blocked"
    assert choose_attention("auto", cuda, torch.bfloat16, 0.0)[0] == "varlen"
    assert choose_attention("auto", cuda, torch.float32, 0.0) == (
        "sdpa",
        "varlen cannot run: it needs fp16 or bf16, this is float32",
    )
    assert choose_attention("auto", cuda, torch.bfloat16, 0.0, head_width=96)[0] == "varlen"
    for width in (12, 20, 264):
        backend, why = choose_attention("auto", cuda, torch.bfloat16, 0.0, head_width=width)
        assert backend == "sdpa"
        assert why.endswith(f"a multiple of 8 and at most 256, these have {width}")
    assert choose_attention("softmax", cpu, torch.float32, 0.1)[0] == "softmax"
    with pytest.raises(ValueError, match="--attention varlen cannot run: it needs a CUDA device"):
        choose_attention("varlen", cpu, torch.bfloat16, 0.0)
    with pytest.raises(ValueError, match="--attention blocked is for CPUs"):
        choose_attention("blocked", cuda, torch.bfloat16, 0.0)
