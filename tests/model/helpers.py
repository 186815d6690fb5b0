"""Small models and packed inputs for the tests of this folder."""

import torch
from torch import Tensor
from transformers import BertConfig, BertForMaskedLM

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
