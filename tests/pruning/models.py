"""Small models of the families, with no weight at a value that hides a mistake; batches of them."""

import copy
from typing import Any

import torch
import transformers
from torch import nn

WIDTH, HEADS, LAYERS, VOCABULARY = 16, 4, 2, 50
_SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": WIDTH,
    "num_attention_heads": HEADS,
    "num_hidden_layers": LAYERS,
    "intermediate_size": 24,
    "max_position_embeddings": 32,
}
CONFIGS: dict[str, Any] = {
    "bert": transformers.BertConfig(**_SIZES),
    "distilbert": transformers.DistilBertConfig(
        vocab_size=VOCABULARY, dim=WIDTH, n_heads=HEADS, n_layers=LAYERS, hidden_dim=24, max_position_embeddings=32
    ),
    "roberta": transformers.RobertaConfig(**_SIZES, type_vocab_size=1, pad_token_id=1, bos_token_id=0, eos_token_id=2),
}


def make(family: str, head: str, seed: int = 0, **changes: Any) -> nn.Module:
    """AutoModelFor`head`; evaluation mode."""
    config = copy.deepcopy(CONFIGS[family])
    for name, value in changes.items():
        setattr(config, name, value)
    torch.manual_seed(seed)
    model = getattr(transformers, f"AutoModelFor{head}").from_config(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model


def batch(lengths: tuple[int, ...], pad: int = 0, seed: int = 1) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    mask = (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]).long()
    ids = torch.randint(5, VOCABULARY, mask.shape, generator=generator)
    return {"input_ids": torch.where(mask.bool(), ids, pad), "attention_mask": mask}
