"""Counter-based random bits against the published vectors and against what dropout needs of them."""

import torch

from model.kernels.philox import draw_seed, drop_below, philox, philox_keep_mask


def test_known_answers() -> None:
    """Philox4x32-10's own vector for a counter and a key of zeros."""
    zero = philox(torch.zeros(1, dtype=torch.int64), 0)[0].tolist()
    assert zero == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]


def test_words_are_uniform_and_independent_of_their_neighbours() -> None:
    words = philox(torch.arange(20_000), 123)
    bits = ((words[:, :, None] >> torch.arange(32)) & 1).double().flatten(1)  # (n, 128)
    assert (bits.mean(0) - 0.5).abs().max() < 0.02
    correlation = torch.corrcoef(bits.T).fill_diagonal_(0.0)
    assert correlation.abs().max() < 0.05


def test_mask_drops_with_the_probability_and_follows_the_seed() -> None:
    mask = philox_keep_mask((300, 700), 0.1, seed=5)
    assert abs(1.0 - mask.double().mean().item() - drop_below(0.1) / 65536) < 2e-3
    assert torch.equal(mask, philox_keep_mask((300, 700), 0.1, seed=5))
    assert not torch.equal(mask, philox_keep_mask((300, 700), 0.1, seed=5 + 2**40))
    assert torch.equal(mask.flatten()[:1001], philox_keep_mask((1001,), 0.1, seed=5))


def test_seeds_follow_torchs_generator() -> None:
    torch.manual_seed(3)
    first = [draw_seed(), draw_seed()]
    torch.manual_seed(3)
    assert [draw_seed(), draw_seed()] == first
    assert first[0] != first[1]
