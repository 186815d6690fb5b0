"""Dynamic masking, a pure function of (tokens, seed, epoch, sequence id).

How many positions a sequence loses is a function of its length alone, so an update's denominators are known before any
token is read. Which ones is drawn by counter-based random numbers, so a sequence's mask does not depend on its rank,
its micro-batch or a restart.

Shapes: T tokens of a packed micro-batch, S sequences, M masked positions, V tokens of the vocabulary.
"""

import numpy as np
import numpy.typing as npt

from data.hashing import as_uniform, extend, random_bits

Int64 = npt.NDArray[np.int64]
Float64 = npt.NDArray[np.float64]

# Which random number of a position: one stream per decision keeps the decisions independent.
_WHERE, _HOW, _REPLACEMENT = range(3)

_SHARE_MASK_TOKEN, _SHARE_RANDOM_TOKEN = 0.8, 0.1  # Devlin et al. 2019, section 3.1; the rest stays unchanged

# Scales a special token's key: behind every ordinary one (those stay far below), before [CLS] and [SEP] (infinite).
_LAST_RESORT = 1e300


def masked_counts(lengths: npt.ArrayLike, probability: float) -> Int64:
    """Masked positions of sequences of these lengths (S,), [CLS] and [SEP] included: round-half-up, in [1, length - 2].

    Every length must be at least 3, as the corpus guarantees.
    """
    length = np.asarray(lengths, dtype=np.int64)
    wanted = np.floor(probability * length + 0.5).astype(np.int64)
    return np.clip(wanted, 1, length - 2)


def smoothed_weights(token_counts: npt.ArrayLike, smoothing: float) -> Float64:
    """Weight of each token in the draw of positions: max(count, 1) ** -smoothing. Shapes: (V,) to (V,) float64.

    The smoothing of XLM (Lample & Conneau 2019), which DistilBERT's recipe uses at 0.7: rare tokens are masked more often.
    """
    return np.maximum(np.asarray(token_counts, dtype=np.float64), 1.0) ** -smoothing


def mask_tokens(
    tokens: Int64,
    cu_seqlens: npt.NDArray[np.integer],
    sequence_ids: Int64,
    epochs: Int64,
    *,
    seed: int,
    weights: Float64,
    special: npt.NDArray[np.bool_],
    ordinary: Int64,
    mask_id: int,
    probability: float,
) -> tuple[Int64, Int64, Int64]:
    """Corrupt a packed micro-batch: (corrupted tokens (T,), masked positions (M,) ascending, their true tokens (M,)).

    tokens (T,), cu_seqlens (S+1,), sequence_ids (S,), epochs (S,), weights (V,) from `smoothed_weights`, special (V,),
    ordinary: the ids of all tokens that are not special.

    Exactly `masked_counts(length)` positions per sequence, drawn without replacement with the weights of their tokens.
    Never the first and the last position ([CLS] and [SEP]). Special tokens inside the text (such as [UNK]) are drawn
    only when every ordinary position of the sequence is already taken and the exact count is not reached.
    Of the masked positions 80% become [MASK], 10% a random non-special token, 10% stay.
    """
    starts, lengths = np.asarray(cu_seqlens[:-1], dtype=np.int64), np.diff(cu_seqlens).astype(np.int64)
    sequence_keys = random_bits(random_bits(seed, epochs, sequence_ids))  # (S,)
    column = np.arange(len(tokens)) - np.repeat(starts, lengths)  # (T,) the position of each token in its sequence
    bits = extend(np.repeat(sequence_keys, lengths), column)  # (T,)

    race = -np.log(as_uniform(extend(bits, _WHERE)))
    keys = race / weights[tokens]
    held_back = np.flatnonzero(special[tokens])
    keys[held_back] = _LAST_RESORT * (1.0 + race[held_back])
    keys[starts] = np.inf
    keys[starts + lengths - 1] = np.inf
    positions = _smallest_per_sequence(keys, lengths, masked_counts(lengths, probability))

    labels = tokens[positions]
    how = as_uniform(extend(bits[positions], _HOW))
    # The modulo's bias is V / 2**64: no one can measure it.
    random_tokens = ordinary[extend(bits[positions], _REPLACEMENT) % np.uint64(len(ordinary))]
    corrupted = tokens.copy()
    corrupted[positions] = np.where(
        how < _SHARE_MASK_TOKEN, mask_id, np.where(how < _SHARE_MASK_TOKEN + _SHARE_RANDOM_TOKEN, random_tokens, labels)
    )
    return corrupted, positions, labels


def _smallest_per_sequence(keys: Float64, lengths: Int64, counts: Int64) -> Int64:
    """Packed positions of the counts[s] smallest keys of each sequence s, ascending.

    The n smallest of -log(u)/w are a weighted draw without replacement (Efraimidis & Spirakis 2006).
    """
    # A matrix with a sequence per row turns S small selections into one sort of contiguous rows.
    longest = int(lengths.max())
    matrix = np.full((len(lengths), longest), np.inf)
    matrix[np.arange(longest) < lengths[:, None]] = keys
    matrix.sort(axis=1)
    threshold = matrix[np.arange(len(counts)), counts - 1]  # (S,) the largest key that is still taken
    positions = np.flatnonzero(keys <= np.repeat(threshold, lengths))
    if len(positions) != int(counts.sum()):  # two equal keys at a threshold: rare, but the count is a promise
        row = np.repeat(np.arange(len(lengths)), lengths)
        column = np.arange(len(keys)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        order = np.lexsort((column, keys, row))
        rank = np.empty_like(order)
        rank[order] = column  # sorted by row, so the n-th of a row stands where its n-th column stood
        positions = np.flatnonzero(rank < counts[row])
    return positions


class Masker:
    """`mask_tokens` with everything bound that does not change between micro-batches."""

    def __init__(
        self,
        seed: int,
        probability: float,
        weights: npt.NDArray[np.float64],
        special: npt.NDArray[np.bool_],
        mask_id: int,
    ) -> None:
        self.seed, self.probability = seed, probability
        self._weights, self._special, self._mask_id = weights, special, mask_id
        self._ordinary = np.flatnonzero(~special)

    def __call__(
        self, tokens: Int64, cu_seqlens: Int64, sequence_ids: Int64, epochs: Int64
    ) -> tuple[Int64, Int64, Int64]:
        """See `mask_tokens`."""
        return mask_tokens(
            tokens,
            cu_seqlens,
            sequence_ids,
            epochs,
            seed=self.seed,
            weights=self._weights,
            special=self._special,
            ordinary=self._ordinary,
            mask_id=self._mask_id,
            probability=self.probability,
        )
