"""Small models and packed inputs for the tests of this folder."""

import torch
from torch import Tensor
from transformers import (
    BertConfig,
    BertForMaskedLM,
    DistilBertConfig,
    DistilBertForMaskedLM,
    PreTrainedConfig,
    PreTrainedModel,
    RobertaConfig,
    RobertaForMaskedLM,
    XLMRobertaConfig,
    XLMRobertaForMaskedLM,
)

from model.bert import MaskedLanguageModel

LENGTHS = (7, 3, 12, 5)
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
"""Where the Triton kernels' tests run; on the CPU in the interpreter."""


def relative_error(got: Tensor, expected: Tensor) -> float:
    return ((got.double() - expected).norm() / expected.norm()).item()


def bert(seed: int = 0, **overrides: object) -> BertForMaskedLM:
    """A Hugging Face BERT with random weights of realistic magnitude and non-zero biases."""
    settings: dict = {
        "vocab_size": 131,
        "hidden_size": 32,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "intermediate_size": 64,
        "max_position_embeddings": 24,
        "initializer_range": 0.1,
    }
    torch.manual_seed(seed)
    model = BertForMaskedLM(BertConfig(**(settings | overrides))).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(std=0.1)
    return model


def packed(
    lengths: tuple[int, ...] = LENGTHS, vocab_size: int = 131, seed: int = 0
) -> tuple[Tensor, Tensor, Tensor, int]:
    """token_ids (T,), position_ids (T,), cu_seqlens (S+1,), max_seqlen."""
    generator = torch.Generator().manual_seed(seed)
    token_ids = torch.randint(5, vocab_size, (sum(lengths),), generator=generator)
    position_ids = torch.cat([torch.arange(length) for length in lengths])
    cu_seqlens = torch.tensor([0, *torch.tensor(lengths).cumsum(0).tolist()], dtype=torch.int32)
    return token_ids, position_ids, cu_seqlens, max(lengths)


def padded(token_ids: Tensor, lengths: tuple[int, ...] = LENGTHS) -> tuple[Tensor, Tensor]:
    """The same tokens as (S, L) with an attention mask, the way Hugging Face models take them."""
    ids = torch.zeros(len(lengths), max(lengths), dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, piece in enumerate(token_ids.split(list(lengths))):
        ids[row, : len(piece)] = piece
        mask[row, : len(piece)] = 1
    return ids, mask


FAMILIES: dict[str, tuple[type[PreTrainedConfig], type[PreTrainedModel], dict[str, object]]] = {
    "bert": (BertConfig, BertForMaskedLM, {}),
    "distilbert": (DistilBertConfig, DistilBertForMaskedLM, {"max_position_embeddings": 24}),
    "roberta": (RobertaConfig, RobertaForMaskedLM, {"layer_norm_eps": 1e-5, "type_vocab_size": 1}),
    "xlm-roberta": (XLMRobertaConfig, XLMRobertaForMaskedLM, {"layer_norm_eps": 1e-5, "type_vocab_size": 1}),
}


def published(model_type: str, seed: int = 0, **overrides: object) -> PreTrainedModel:
    """transformers' own model of a family with 24 usable positions, random weights of realistic magnitude, no zeros."""
    config_class, model_class, usual = FAMILIES[model_type]
    settings: dict = {
        "vocab_size": 131,
        "hidden_size": 32,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "hidden_dim" if model_type == "distilbert" else "intermediate_size": 64,
        "initializer_range": 0.1,
        **usual,
        **overrides,
    }
    pad = settings.get("pad_token_id", 1)
    settings.setdefault("max_position_embeddings", 24 + (pad + 1 if "roberta" in model_type else 0))
    torch.manual_seed(seed)
    model = model_class(config_class(**settings)).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(("bias", "position_embeddings.weight")):
                parameter.normal_(std=0.1)
    return model


def logits_of(model: MaskedLanguageModel, lengths: tuple[int, ...], token_ids: Tensor) -> Tensor:
    """(T, V) of packed tokens."""
    _, *layout = packed(lengths)
    with torch.no_grad():
        return model.logits(model(token_ids, *layout).features)


def published_logits(model: PreTrainedModel, lengths: tuple[int, ...], token_ids: Tensor) -> Tensor:
    """(T, V) of the same tokens as a batch padded on the right, without what stands at the padding."""
    ids, mask = padded(token_ids, lengths)
    ids[mask == 0] = model.config.pad_token_id
    with torch.no_grad():
        return model(input_ids=ids, attention_mask=mask).logits[mask.bool()]
