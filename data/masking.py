"""Dynamic masking, a pure function of (tokens, seed, epoch, sequence id).

How many positions a sequence loses is a function of its length alone, so an update's denominators are known before any
token is read. Which ones is drawn by counter-based random numbers, so a sequence's mask does not depend on its rank,
its micro-batch or a restart.

Shapes: T tokens of a packed micro-batch, S sequences, M masked positions, V tokens of the vocabulary.
"""

import numpy as np
import numpy.typing as npt

from data.hashing import random_bits, uniform

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
    mask_id: int,
    probability: float,
) -> tuple[Int64, Int64, Int64]:
    """Corrupt a packed micro-batch: (corrupted tokens (T,), masked positions (M,) ascending, their true tokens (M,)).

    tokens (T,), cu_seqlens (S+1,), sequence_ids (S,), epochs (S,), weights (V,) from `smoothed_weights`, special (V,).

    Exactly `masked_counts(length)` positions per sequence, drawn without replacement with the weights of their tokens.
    Never the first and the last position ([CLS] and [SEP]). Special tokens inside the text (such as [UNK]) are drawn
    only when every ordinary position of the sequence is already taken and the exact count is not reached.
    Of the masked positions 80% become [MASK], 10% a random non-special token, 10% stay.
    """
    starts, lengths = np.asarray(cu_seqlens[:-1], dtype=np.int64), np.diff(cu_seqlens).astype(np.int64)
    row = np.repeat(np.arange(len(lengths)), lengths)  # (T,) the sequence of each token
    column = np.arange(len(tokens)) - starts[row]  # (T,) its position in it
    sequence_keys = random_bits(seed, epochs, sequence_ids)  # (S,)

    race = -np.log(uniform(sequence_keys[row], column, _WHERE))
    keys = np.where(special[tokens], _LAST_RESORT * (1.0 + race), race / weights[tokens])
    keys[starts] = np.inf
    keys[starts + lengths - 1] = np.inf
    positions = _smallest_per_sequence(keys, row, column, masked_counts(lengths, probability))

    labels = tokens[positions]
    coordinates = (sequence_keys[row[positions]], column[positions])
    how = uniform(*coordinates, _HOW)
    ordinary = np.flatnonzero(~special)
    # The modulo's bias is V / 2**64: no one can measure it.
    random_tokens = ordinary[(random_bits(*coordinates, _REPLACEMENT) % np.uint64(len(ordinary))).astype(np.int64)]
    corrupted = tokens.copy()
    corrupted[positions] = np.select(
        [how < _SHARE_MASK_TOKEN, how < _SHARE_MASK_TOKEN + _SHARE_RANDOM_TOKEN], [mask_id, random_tokens], labels
    )
    return corrupted, positions, labels


def _smallest_per_sequence(keys: Float64, row: Int64, column: Int64, counts: Int64) -> Int64:
    """Packed positions of the counts[s] smallest keys of each sequence s, ascending.

    The n smallest of -log(u)/w are a weighted draw without replacement (Efraimidis & Spirakis 2006).
    """
    # A matrix with a sequence per row turns S small selections into one sort of contiguous rows.
    matrix = np.full((len(counts), int(column.max()) + 1), np.inf)
    matrix[row, column] = keys
    matrix.sort(axis=1)
    threshold = matrix[np.arange(len(counts)), counts - 1]  # (S,) the largest key that is still taken
    positions = np.flatnonzero(keys <= threshold[row])
    if len(positions) != int(counts.sum()):  # two equal keys at a threshold: rare, but the count is a promise
        order = np.lexsort((column, keys, row))
        rank = np.empty_like(order)
        rank[order] = column  # sorted by row, so the n-th of a row stands where its n-th column stood
        positions = np.flatnonzero(rank < counts[row])
    return positions
