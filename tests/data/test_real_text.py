"""Real text with BERT's own vocabularies, where they are at hand (DISTILLERY_DATA)."""

import itertools
import os
from pathlib import Path

import numpy as np
import pytest

from data.batching import BatchLoader, Blend, Corpus, UpdateWindows
from data.prepare import main
from data.sources import SourceOptions, plan_inputs
from data.tokenizer import load_tokenizer

FOLDER = Path(os.environ.get("DISTILLERY_DATA", Path(__file__).parents[2] / ".." / "shared" / "data"))
pytestmark = pytest.mark.skipif(
    not FOLDER.is_dir(), reason=f"no real data at {FOLDER}; set DISTILLERY_DATA to its folder"
)


@pytest.mark.parametrize(
    ("vocabulary", "lowercase", "size"),
    [("bert-base-uncased-vocab.txt", True, 30522), ("bert-base-multilingual-cased-vocab.txt", False, 119547)],
)
def test_tokens_equal_transformers_on_real_text(tmp_path: Path, vocabulary: str, lowercase: bool, size: int) -> None:
    from transformers import AutoTokenizer, BertTokenizer

    path = FOLDER / "vocab" / vocabulary
    ours = load_tokenizer(str(path))
    ours.save(tmp_path)
    [item] = plan_inputs([str(FOLDER / "wiki/en-2018-heldout.jsonl.xz")], SourceOptions(), 1 << 30)
    [(_, documents)] = item.parts(lambda part: True, lambda read: None)
    assert documents is not None
    texts = [text for text in itertools.islice(documents, 12) if isinstance(text, str)]
    found = [ids.tolist() for ids in ours.encode_batch(texts)]
    for theirs in (AutoTokenizer.from_pretrained(str(tmp_path)), BertTokenizer(str(path), do_lower_case=lowercase)):
        assert found == [theirs(text, add_special_tokens=False, verbose=False)["input_ids"] for text in texts]
    assert ours.vocab_size == size


def test_a_real_corpus_from_text_to_batches(tmp_path: Path) -> None:
    texts = [str(FOLDER / "wiki/en-2018-heldout.jsonl.xz")]
    vocabulary = FOLDER / "vocab/bert-base-uncased-vocab.txt"
    assert (
        main(["--input", *texts, "--tokenizer", str(vocabulary), "--output", str(tmp_path / "x"), "--workers", "2"])
        == 0
    )
    corpus = Corpus.open(tmp_path / "x", max_length=128)
    windows = UpdateWindows(Blend([corpus]), sequences_per_update=64, seed=0, mask_probability=0.15)
    with BatchLoader(
        windows, rank=0, num_ranks=1, sequences_per_micro_batch=32, first_update=0, last_update=20
    ) as loader:
        batches = [batch for _, micro_batches in loader for batch in micro_batches]
    counts = corpus.dataset.token_counts()
    labels = np.concatenate([batch.masked_labels.numpy() for batch in batches])
    # Smoothing at work: what is predicted is rarer than what is written.
    assert np.log(counts[labels]).mean() < np.average(np.log(np.maximum(counts, 1)), weights=counts) - 0.5
    words = load_tokenizer(str(tmp_path / "x.tokenizer")).decode(batches[0].token_ids[:64].numpy())
    assert words.startswith("[CLS] ")
    assert "[MASK]" in words
