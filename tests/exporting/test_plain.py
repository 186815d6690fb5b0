"""The exported graph against transformers' own models."""

import copy

import pytest
import torch
import transformers
from torch import nn

from exporting.plain import PRUNED_HEADS, plain_model

SIZES = {
    "vocab_size": 97,
    "hidden_size": 32,
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "max_position_embeddings": 24,
}
CONFIGS = {
    "bert": transformers.BertConfig(**SIZES, intermediate_size=48),
    "distilbert": transformers.DistilBertConfig(
        vocab_size=97, dim=32, n_heads=4, n_layers=2, hidden_dim=48, max_position_embeddings=24
    ),
    "roberta": transformers.RobertaConfig(
        **SIZES, intermediate_size=48, type_vocab_size=1, pad_token_id=1, bos_token_id=0, eos_token_id=2
    ),
}
HEADS = (
    transformers.AutoModelForMaskedLM,
    transformers.AutoModelForSequenceClassification,
    transformers.AutoModelForQuestionAnswering,
)


def make(family: str, head: type) -> nn.Module:
    torch.manual_seed(3)
    model = head.from_config(copy.deepcopy(CONFIGS[family])).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # biases start at zero, norms at one: a swap would not be seen
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model


def inputs(lengths: tuple[int, ...], pad: int, with_types: bool) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    ids = torch.randint(4, 97, (len(lengths), max(lengths)), generator=generator)
    mask = (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]).long()
    batch = {"input_ids": torch.where(mask.bool(), ids, pad), "attention_mask": mask}
    return batch | ({"token_type_ids": (torch.arange(max(lengths)) > 2).long() * mask} if with_types else {})


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("family", CONFIGS)
@torch.no_grad()
def test_equals_transformers(family: str, head: type) -> None:
    model = make(family, head)
    plain = plain_model(model)
    batch = inputs((16, 7, 1), CONFIGS[family].pad_token_id, with_types="token_type_ids" in plain.input_names)
    expected = model(**batch)
    for name, value in zip(plain.output_names, plain(**batch), strict=True):
        for row, length in enumerate((16, 7, 1)):
            ours, theirs = value[row], expected[name][row]
            if name != "logits" or head is transformers.AutoModelForMaskedLM:
                ours, theirs = ours[:length], theirs[:length]
            torch.testing.assert_close(ours, theirs, atol=2e-6, rtol=1e-5)


@torch.no_grad()
def test_a_pruned_head_is_gone_and_computes_what_zeroed_columns_do() -> None:
    model = make("distilbert", transformers.AutoModelForSequenceClassification)
    pruned = {0: [1, 3], 1: [0]}
    for layer, heads in pruned.items():
        for head in heads:
            model.distilbert.transformer.layer[layer].attention.out_lin.weight[:, head * 8 : head * 8 + 8] = 0
    batch = inputs((9, 4), 0, with_types=False)
    expected = model(**batch).logits
    setattr(model.config, PRUNED_HEADS, {str(layer): heads for layer, heads in pruned.items()})
    plain = plain_model(model)
    assert plain.shape.num_heads == (2, 3)
    assert plain.encoder.layers[0].query.weight.shape == (16, 32)
    torch.testing.assert_close(plain(**batch)[0], expected, atol=2e-6, rtol=1e-5)
    setattr(model.config, PRUNED_HEADS, {"1": [0, 1, 2, 3]})
    with pytest.raises(ValueError, match="layer 1 without heads"):
        plain_model(model)


def test_the_vocabulary_projection_stays_the_word_embedding() -> None:
    plain = plain_model(make("bert", transformers.AutoModelForMaskedLM))
    assert plain.head.decoder.weight is plain.encoder.word.weight


def test_another_head_or_architecture_is_refused() -> None:
    with pytest.raises(ValueError, match="no head that is exported"):
        plain_model(transformers.DistilBertModel(CONFIGS["distilbert"]))
    with pytest.raises(ValueError, match="a gpt2 is not exported"):
        plain_model(transformers.GPT2LMHeadModel(transformers.GPT2Config(n_layer=1, n_head=2, n_embd=8, vocab_size=11)))
