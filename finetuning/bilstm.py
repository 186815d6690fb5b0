"""The recurrent student of the earlier literature (Tang et al. 2019, arXiv:1903.12136): one BiLSTM layer, no pre-training.

Shapes: B texts, L tokens of the longest, E width of an embedding, H width of a direction, C outputs.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence


@dataclass(frozen=True, kw_only=True)
class BiLstmConfig:
    """The published widths."""

    vocab_size: int
    num_labels: int
    pad_id: int
    sep_id: int
    """Ends a text."""
    is_pair: bool
    """Whether there are two texts, each read on its own."""
    embedding_size: int = 300
    hidden_size: int = 150
    classifier_size: int = 400
    dropout: float = 0.1


@dataclass
class Output:
    """As transformers' models answer."""

    logits: Tensor  # (B, C)


class BiLstm(nn.Module):
    """Both texts of a pair go through the same BiLSTM; the classifier sees u, v, u * v and |u - v|, or u alone."""

    def __init__(self, shape: BiLstmConfig) -> None:
        super().__init__()
        self.shape = shape  # what is called config the Trainer writes into
        width = 2 * shape.hidden_size * (4 if shape.is_pair else 1)
        self.embedding = nn.Embedding(shape.vocab_size, shape.embedding_size, padding_idx=shape.pad_id)
        self.lstm = nn.LSTM(shape.embedding_size, shape.hidden_size, bidirectional=True, batch_first=True)
        self.hidden = nn.Linear(width, shape.classifier_size)
        self.classifier = nn.Linear(shape.classifier_size, shape.num_labels)
        self.dropout = nn.Dropout(shape.dropout)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Output:
        """Both (B, L): [CLS] text [SEP], or [CLS] text [SEP] text [SEP], also with RoBERTa's two [SEP] between."""
        separators = (input_ids == self.shape.sep_id) & attention_mask.bool()
        ends = separators.int().argmax(dim=1)  # of the first text
        positions = torch.arange(input_ids.shape[1], device=input_ids.device)[None]
        words = attention_mask.bool() & ~separators
        features = self._read(input_ids, words & (positions < ends[:, None]) & (positions > 0))
        if self.shape.is_pair:
            u, v = features, self._read(input_ids, words & (positions > ends[:, None]))
            features = torch.cat([u, v, u * v, (u - v).abs()], dim=1)
        return Output(self.classifier(self.dropout(torch.relu(self.hidden(features)))))

    def _read(self, input_ids: Tensor, chosen: Tensor) -> Tensor:
        """(B, 2H) last states of both directions over the chosen tokens of each row; an empty text is one padding token."""
        lengths = chosen.sum(dim=1).clamp(min=1)
        order = chosen.int().argsort(dim=1, descending=True, stable=True)[:, : int(lengths.max())]
        tokens = torch.where(chosen, input_ids, self.shape.pad_id).gather(1, order)
        packed = pack_padded_sequence(
            self.dropout(self.embedding(tokens)), lengths.cpu(), batch_first=True, enforce_sorted=False
        )
        _, (last, _) = self.lstm(packed)
        return self.dropout(torch.cat([last[0], last[1]], dim=1))

    def save_pretrained(self, folder: Path) -> None:
        """config.json and model.safetensors; `load_bilstm` reads them."""
        save_file(self.state_dict(), folder / "model.safetensors")
        (folder / "config.json").write_text(json.dumps({"model_type": "bilstm", **asdict(self.shape)}, indent=2) + "\n")


def load_bilstm(folder: Path) -> BiLstm:
    """What `save_pretrained` wrote, in evaluation mode."""
    raw = json.loads((folder / "config.json").read_text())
    raw.pop("model_type")
    model = BiLstm(BiLstmConfig(**raw))
    model.load_state_dict(load_file(folder / "model.safetensors"))
    return model.eval()
