"""The one encoder: teacher and student are two configurations of it. Post-layer-norm BERT (Devlin et al. 2018) over
packed sequences, without token types (folded into the positions when weights are loaded), pooler or next-sentence head.

Shapes: T real tokens, S sequences, H hidden width, A heads, D head width, V vocabulary (padded to a multiple of 64).
"""

from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from model.attention import Packing, attend, make_packing
from model.config import EncoderConfig
from model.kernels.activation import feed_forward, linear_gelu
from model.kernels.choice import Kernels
from model.kernels.dropout import dropout
from model.kernels.embedding import tied_embedding
from model.kernels.layer_norm import FusedLayerNorm
from model.kernels.linear import linear
from model.kernels.vocab_loss import Decoder


class Prediction(NamedTuple):
    """What the objective reads of a model."""

    hidden: Tensor
    """(T, H) last hidden state."""
    features: Tensor
    """(T, H), or (M, H) where positions were named: what the vocabulary projection multiplies."""
    decoder: Decoder
    """The projection itself. It leaves through `forward` on purpose: DeepSpeed hooks a module's outputs, and under ZeRO-1
    in bf16 it clears, at the first of them, gradients of parameters that a loss reached behind the engine's back."""


class Layer(nn.Module):
    def __init__(self, config: EncoderConfig, kernels: Kernels) -> None:
        super().__init__()
        width, inner = config.hidden_size, config.intermediate_size
        self.num_heads = config.num_heads
        self.kernels = kernels
        self.hidden_dropout = config.hidden_dropout
        self.attention_dropout = config.attention_dropout
        self.qkv = nn.Linear(width, 3 * width)
        self.attention_output = nn.Linear(width, width)
        self.attention_norm = FusedLayerNorm(width, config.layer_norm_eps, kernels.layer_norm)
        self.ffn_in = nn.Linear(width, inner)
        self.ffn_out = nn.Linear(inner, width)
        self.ffn_norm = FusedLayerNorm(width, config.layer_norm_eps, kernels.layer_norm)

    def forward(self, hidden: Tensor, packing: Packing) -> Tensor:  # (T, H) -> (T, H)
        qkv = linear(hidden, self.qkv, self.kernels.linear).unflatten(-1, (3, self.num_heads, -1))  # (T, 3, A, D)
        probability = self.attention_dropout if self.training else 0.0
        context = attend(qkv, packing, self.kernels.attention, probability, self.kernels.softmax)
        hidden = self.attention_norm(
            linear(context, self.attention_output, self.kernels.linear), hidden, self.hidden_dropout
        )
        inner = feed_forward(hidden, self.ffn_in, self.ffn_out, self.kernels.activation, self.kernels.linear)
        return self.ffn_norm(inner, hidden, self.hidden_dropout)


class Encoder(nn.Module):
    def __init__(self, config: EncoderConfig, kernels: Kernels) -> None:
        super().__init__()
        self.config = config
        self.kernels = kernels
        self.word = nn.Embedding(config.padded_vocab_size, config.hidden_size)
        self.position = nn.Embedding(config.max_positions, config.hidden_size)
        self.norm = FusedLayerNorm(config.hidden_size, config.layer_norm_eps, kernels.layer_norm)
        self.layers = nn.ModuleList(Layer(config, kernels) for _ in range(config.num_layers))

    def embed(self, token_ids: Tensor, position_ids: Tensor) -> Tensor:
        """(T,), (T,) -> (T, H): word plus position, normalised."""
        return self._embed(self.word(token_ids), position_ids)

    def forward(
        self, token_ids: Tensor, position_ids: Tensor, cu_seqlens: Tensor, max_seqlen: int
    ) -> tuple[Tensor, Tensor]:
        """(T, H) last hidden state, and the word embedding (V, H) as the projection is to use it."""
        packing = make_packing(position_ids, cu_seqlens, max_seqlen, self.kernels.attention)
        words, projection = tied_embedding(token_ids, self.word.weight)
        hidden = dropout(self._embed(words, position_ids), self.config.hidden_dropout, self.training)
        rows = packing.unpack(hidden)
        for layer in self.layers:
            rows = layer(rows, packing)
        return packing.pack(rows), projection

    def _embed(self, words: Tensor, position_ids: Tensor) -> Tensor:
        return self.norm(words, self.position(position_ids))


class Head(nn.Module):
    """The masked-LM head up to the vocabulary projection, whose weight is the word embedding."""

    def __init__(self, config: EncoderConfig, kernels: Kernels) -> None:
        super().__init__()
        self.kernels = kernels
        self.transform = nn.Linear(config.hidden_size, config.hidden_size)
        self.norm = FusedLayerNorm(config.hidden_size, config.layer_norm_eps, kernels.layer_norm)
        self.bias = nn.Parameter(self.transform.weight.new_zeros(config.padded_vocab_size))

    def forward(self, hidden: Tensor) -> Tensor:  # (T, H) -> (T, H)
        return self.norm(linear_gelu(hidden, self.transform, self.kernels.activation))


class MaskedLanguageModel(nn.Module):
    """Encoder and masked-LM head.

    It stops before the vocabulary projection on purpose: a (T, V) tensor of logits is never made by the model, the
    objective walks it in chunks. `logits` spells it out for small inputs and tests.
    """

    def __init__(self, config: EncoderConfig, kernels: Kernels | None = None) -> None:
        super().__init__()
        self.config = config
        self.kernels = kernels = kernels or Kernels()
        self.encoder = Encoder(config, kernels)
        self.head = Head(config, kernels)

    def forward(
        self,
        token_ids: Tensor,
        position_ids: Tensor,
        cu_seqlens: Tensor,
        max_seqlen: int,
        predict_at: Tensor | None = None,
    ) -> Prediction:
        """token_ids (T,), position_ids (T,), cu_seqlens (S+1,) int32; `predict_at` (M,) limits the head to those
        positions."""
        hidden, projection = self.encoder(token_ids, position_ids, cu_seqlens, max_seqlen)
        features = self.head(hidden if predict_at is None else hidden.index_select(0, predict_at))
        decoder = Decoder(projection, self.head.bias.view_as(self.head.bias), self.config.vocab_size)
        return Prediction(hidden, features, decoder)

    def decoder(self) -> Decoder:
        return Decoder(self.encoder.word.weight, self.head.bias, self.config.vocab_size)

    def logits(self, features: Tensor) -> Tensor:
        """(T, H) -> (T, vocab_size), in the model's dtype."""
        weight, bias, vocab_size = self.decoder()
        return F.linear(features, weight[:vocab_size], bias[:vocab_size])

    def initialise(self, std: float) -> None:
        """BERT's random start: normal weights, zero biases, unit norms; padding rows of the vocabulary stay zero."""
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=std)
            if isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)
            if isinstance(module, nn.LayerNorm):
                nn.init.ones_(module.weight)
                nn.init.zeros_(module.bias)
        nn.init.zeros_(self.head.bias)
        nn.init.zeros_(self.encoder.word.weight[self.config.vocab_size :])
