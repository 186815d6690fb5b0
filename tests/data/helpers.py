"""Small corpora and texts that the tests of data/ make for themselves."""

import hashlib
import itertools
import random
from pathlib import Path

import numpy as np

from data.batching import Batch, BatchLoader, UpdateWindows, Window
from data.corpus_writer import IndexedDatasetWriter
from data.indexed_dataset import IndexedDataset, corpus_file
from data.sidecar import VERSION, FileFacts, Sidecar, SplitFacts, TokenizerFacts, write_sidecar
from data.tokenizer import Tokenizer, wordpiece

VOCAB_SIZE = 120
PAD, UNK, CLS, SEP, MASK = range(5)
FIRST_WORD = 5


def random_documents(number: int, longest: int, seed: int = 0) -> list[np.ndarray]:
    """Documents of 1 to `longest` word tokens; small ids are commoner, as in a vocabulary ordered by frequency."""
    generator = np.random.default_rng(seed)
    lengths = generator.integers(1, longest + 1, size=number)
    words = VOCAB_SIZE - FIRST_WORD
    return [FIRST_WORD + (words * generator.random(length) ** 2).astype(np.int64) for length in lengths]


def small_tokenizer() -> Tokenizer:
    """VOCAB_SIZE tokens, of which those before FIRST_WORD are special."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    words = [*special, *(f"word{number}" for number in range(VOCAB_SIZE - len(special)))]
    return wordpiece({word: number for number, word in enumerate(words)}, {}, {}, "the test")


def documents_of(dataset: IndexedDataset) -> list[list[int]]:
    """The tokens of every document."""
    starts, lengths = dataset.index.locate(np.arange(dataset.num_documents))
    return [dataset.tokens[first : first + number].tolist() for first, number in zip(starts, lengths, strict=True)]


def write_corpus(prefix: Path, documents: list[np.ndarray]) -> None:
    """A complete corpus of these documents, as prepare leaves it."""
    with IndexedDatasetWriter(prefix, VOCAB_SIZE) as writer:
        for document in documents:
            writer.add_document(document)
    np.save(corpus_file(prefix, ".token_counts.npy"), writer.token_counts)
    tokenizer = small_tokenizer()
    tokenizer.save(corpus_file(prefix, ".tokenizer"))
    facts = TokenizerFacts(
        fingerprint=tokenizer.fingerprint,
        vocab_size=VOCAB_SIZE,
        cls_id=CLS,
        sep_id=SEP,
        mask_id=MASK,
        pad_id=PAD,
        unk_id=UNK,
        special_ids=[PAD, UNK, CLS, SEP, MASK],
        files=corpus_file(prefix, ".tokenizer").name,
    )
    bin_bytes, idx_bytes = (corpus_file(prefix, end).read_bytes() for end in (".bin", ".idx"))
    sidecar = Sidecar(
        version=VERSION,
        tokenizer=facts,
        documents=len(documents),
        tokens=writer.num_tokens,
        dropped={},
        dtype=writer.dtype.name,
        bin=FileFacts(size=len(bin_bytes), sha256=hashlib.sha256(bin_bytes).hexdigest()),
        idx=FileFacts(size=len(idx_bytes), sha256=hashlib.sha256(idx_bytes).hexdigest()),
        inputs=["test"],
        split=SplitFacts(),
    )
    write_sidecar(prefix, sidecar)


def random_texts(number: int, seed: int = 0) -> list[str]:
    """Texts with capitals, accents, digits, punctuation, other scripts and line breaks."""
    generator = random.Random(seed)
    words = ["the", "of", "and", "Distillery", "teacher", "student", "Ångström", "naïve", "façade", "1984", "3.14"]
    words += ["don't", "e-mail", "東京", "Москва", "unbelievably"]
    words += ["".join(generator.choices("etaoinshrdlu", k=generator.randint(2, 9))) for _ in range(300)]
    texts = []
    for _ in range(number):
        sentences = []
        for _ in range(generator.randint(1, 12)):
            sentences.append(" ".join(generator.choices(words, k=generator.randint(3, 15))) + generator.choice(".!?;"))
        texts.append(generator.choice([" ", "\n"]).join(sentences))
    return texts


def load_updates(
    windows: UpdateWindows,
    first: int,
    last: int,
    *,
    rank: int = 0,
    num_ranks: int = 1,
    micro_batch: int = 6,
    smoothing: float = 0.7,
) -> list[tuple[Window, list[Batch]]]:
    """The updates [first, last) as the loader gives them to a rank."""
    with BatchLoader(
        windows,
        rank=rank,
        num_ranks=num_ranks,
        sequences_per_micro_batch=micro_batch,
        first_update=first,
        last_update=last,
        prefetch=2,
        mask_smoothing=smoothing,
    ) as loader:
        return [(window, list(batches)) for window, batches in loader]


def sequences_of(batch: Batch) -> list[tuple]:
    """What each sequence of a batch is, wherever it is packed: id, corrupted tokens, masked positions, labels."""
    found = []
    cu_seqlens = batch.cu_seqlens.tolist()
    for number, (start, stop) in enumerate(itertools.pairwise(cu_seqlens)):
        inside = (batch.masked_positions >= start) & (batch.masked_positions < stop)
        found.append(
            (
                int(batch.sequence_ids[number]),
                tuple(batch.token_ids[start:stop].tolist()),
                tuple((batch.masked_positions[inside] - start).tolist()),
                tuple(batch.masked_labels[inside].tolist()),
            )
        )
    return found
