"""Corpora of Megatron-LM's tools/preprocess_data.py train here, and ours open there.

Its builder and its reader are written anew here, from what its sources do: a document is its stored sequences (sentences
with --split-sentences, one otherwise, none where the text is empty), and --append-eod lengthens the last of them by one.
"""

import hashlib
import struct
from pathlib import Path

import numpy as np
import pytest

from data.adopt import main
from data.batching import BatchLoader, Blend, Corpus, UpdateWindows
from data.indexed_dataset import IndexedDataset
from data.sidecar import read_sidecar
from data.tokenizer import wordpiece
from data.verify import verify
from tests.data.helpers import CLS, SEP, VOCAB_SIZE, documents_of, random_documents, small_tokenizer, write_corpus

CODES = {"uint16": 8, "int32": 4}
OUTSIDE = VOCAB_SIZE + 1  # Megatron's BERT tokenizers put [BOS] and [EOS] behind the vocabulary


class Builder:
    """What preprocess_data.py writes, document by document."""

    def __init__(self, prefix: Path, dtype: str) -> None:
        self.prefix, self.dtype = prefix, np.dtype(dtype)
        self.tokens, self.lengths, self.documents = b"", [], [0]

    def add_document(self, sentences: list[list[int]], eod: int | None) -> list[int]:
        """Returns the document's tokens as they are stored."""
        tokens = [token for sentence in sentences for token in sentence]
        lengths = [len(sentence) for sentence in sentences if sentence]
        if tokens and eod is not None:
            tokens.append(eod)
            lengths[-1] += 1
        self.tokens += np.array(tokens, dtype=self.dtype).tobytes(order="C")
        self.lengths += lengths
        self.documents.append(len(self.lengths))
        return tokens

    def finalize(self, modes: bytes = b"") -> None:
        pointers, pointer = [], 0
        for length in self.lengths:
            pointers.append(pointer)
            pointer += length * self.dtype.itemsize
        index = b"MMIDIDX\x00\x00" + struct.pack("<Q", 1) + struct.pack("<B", CODES[self.dtype.name])
        index += struct.pack("<Q", len(self.lengths)) + struct.pack("<Q", len(self.documents))
        index += np.array(self.lengths, dtype=np.int32).tobytes() + np.array(pointers, dtype=np.int64).tobytes()
        index += np.array(self.documents, dtype=np.int64).tobytes() + modes
        Path(f"{self.prefix}.idx").write_bytes(index)
        Path(f"{self.prefix}.bin").write_bytes(self.tokens)


def preprocessed(prefix: Path, dtype: str, is_split: bool, eod: int | None) -> list[list[int]]:
    """A corpus of 30 documents, one of them empty: the stored tokens of each."""
    builder, stored = Builder(prefix, dtype), []
    for number, document in enumerate(random_documents(30, longest=90)):
        text = [] if number == 11 else document.tolist()
        cuts = range(0, len(text), 13) if is_split else [0]
        width = 13 if is_split else len(text)
        stored.append(builder.add_document([text[cut : cut + width] for cut in cuts], eod))
    builder.finalize()
    return stored


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    small_tokenizer().save(folder)
    return folder


def run(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


def hashes(prefix: Path) -> list[str]:
    return [hashlib.sha256(Path(f"{prefix}{end}").read_bytes()).hexdigest() for end in (".bin", ".idx")]


@pytest.mark.parametrize("eod", [None, SEP])
@pytest.mark.parametrize("dtype", ["uint16", "int32"])
@pytest.mark.parametrize("level", ["sentence", "document"])
def test_what_megatron_wrote_trains_here(
    tmp_path: Path, folder: Path, level: str, dtype: str, eod: int | None, capsys: pytest.CaptureFixture
) -> None:
    prefix = tmp_path / f"wiki_text_{level}"
    stored = preprocessed(prefix, dtype, level == "sentence", eod)
    before = hashes(prefix)
    assert run(prefix, "--tokenizer", folder) == 0
    written = capsys.readouterr().out
    assert ("29 [SEP] (3) are stored within the text" in written) == (eod is not None)
    assert hashes(prefix) == before
    sidecar = read_sidecar(prefix)
    assert sidecar is not None
    assert [sidecar.bin.sha256, sidecar.idx.sha256] == before
    assert (sidecar.documents, sidecar.dtype, sidecar.inputs) == (30, dtype, [prefix.name])
    assert verify(prefix).tokens == sum(map(len, stored))

    corpus = Corpus.open(prefix, max_length=32)
    cut = [[CLS, *document[at : at + 30], SEP] for document in stored for at in range(0, len(document), 30)]
    assert corpus.num_sequences == len(cut)
    windows = UpdateWindows(Blend([corpus]), sequences_per_update=16, seed=3, mask_probability=0.15)
    with BatchLoader(
        windows, rank=0, num_ranks=1, sequences_per_micro_batch=8, first_update=0, last_update=1
    ) as loader:
        batches = [batch for _, micro_batches in loader for batch in micro_batches]
    assert len(batches) == 2
    for batch in batches:
        true = batch.token_ids.numpy().copy()
        true[batch.masked_positions.numpy()] = batch.masked_labels.numpy()
        pieces = np.split(true, batch.cu_seqlens.numpy()[1:-1])
        assert [piece.tolist() for piece in pieces] == [cut[number] for number in batch.sequence_ids]
        ordinary = [number for number in batch.masked_labels.tolist() if number > SEP]
        lone = sum(set(piece.tolist()) == {CLS, SEP} for piece in pieces)
        assert (
            len(batch.masked_labels) - len(ordinary) == lone
        )  # an end of document is predicted only where it is alone


@pytest.mark.parametrize("dtype", ["uint16", "int32"])
def test_an_end_of_document_outside_the_vocabulary_is_named_and_can_be_dropped(
    tmp_path: Path, folder: Path, dtype: str, capsys: pytest.CaptureFixture
) -> None:
    prefix, copy = tmp_path / "x_text_sentence", tmp_path / "copy"
    stored = preprocessed(prefix, dtype, True, OUTSIDE)
    assert run(prefix, "--tokenizer", folder) == 2
    error = capsys.readouterr().err
    byte = np.dtype(dtype).itemsize * (len(stored[0]) - 1)
    assert f"token id {OUTSIDE} at byte {byte} (token {len(stored[0]) - 1} of document 0) is outside" in error
    assert f"--drop {OUTSIDE}" in error
    assert len(error.splitlines()) == 1
    assert not Path(f"{prefix}.json").exists()

    before = hashes(prefix)
    assert run(prefix, "--tokenizer", folder, "--drop", OUTSIDE, 7, "--output", copy) == 0
    assert hashes(prefix) == before
    expected = [[token for token in document if token not in (OUTSIDE, 7)] for document in stored]
    expected = [document for document in expected if document]
    dataset = IndexedDataset(copy)
    assert documents_of(dataset) == expected
    assert dataset.dtype == np.uint16
    assert dataset.sidecar is not None
    assert dataset.sidecar.dropped == {"no_tokens": 30 - len(expected)}
    assert verify(copy).documents == len(expected)


def test_ids_in_the_middle_of_a_document_are_located(
    tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture
) -> None:
    for bad in (VOCAB_SIZE, -1):
        builder = Builder(tmp_path / "x", "int32")
        builder.add_document([[9, 9], [9]], None)
        builder.add_document([[], [9, bad, 9]], None)
        builder.finalize()
        assert run(tmp_path / "x", "--tokenizer", folder) == 2
        assert f"token id {bad} at byte 16 (token 1 of document 1) is outside" in capsys.readouterr().err
        assert run(tmp_path / "x", "--tokenizer", folder, "--output", tmp_path / "y") == 2
        assert f"token id {bad} at position 1 of document 1 is outside" in capsys.readouterr().err
        assert sorted(path.name for path in tmp_path.iterdir()) == ["x.bin", "x.idx"]


def test_what_cannot_be_adopted_is_refused(tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture) -> None:
    def refused(message: str, *arguments: object) -> None:
        assert run(*arguments) == 2
        error = capsys.readouterr().err
        assert message in error
        assert len(error.splitlines()) == 1

    prefix = tmp_path / "x"
    preprocessed(prefix, "uint16", False, None)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{number}" for number in range(65_500))]
    wordpiece({word: number for number, word in enumerate(words)}, {}, {}, "the test").save(tmp_path / "large")
    refused("stored as uint16, but the 65505 tokens", prefix, "--tokenizer", tmp_path / "large")
    refused("no tokenizer", prefix, "--tokenizer", "./nowhere/at/all")
    refused("no corpus", tmp_path / "y", "--tokenizer", folder)
    refused("--drop 3 changes what is stored", prefix, "--tokenizer", folder, "--drop", 3)
    refused("give the copy another name", prefix, "--tokenizer", folder, "--output", prefix)
    everything = range(VOCAB_SIZE)
    refused("nothing of", prefix, "--tokenizer", folder, "--drop", *everything, "--output", tmp_path / "z")
    # Tokens that belong to no document would be counted by nobody.
    path = Path(f"{prefix}.bin")
    path.write_bytes(path.read_bytes() + b"\x09\x00")
    refused("some are in no document", prefix, "--tokenizer", folder)
    path.write_bytes(path.read_bytes()[:-2])
    assert run(prefix, "--tokenizer", folder) == 0
    refused("is a complete corpus already", prefix, "--tokenizer", folder)

    builder = Builder(tmp_path / "m", "uint16")
    builder.add_document([[9, 9], [9]], None)
    builder.finalize(modes=b"\x00\x01")
    refused("multimodal corpus", tmp_path / "m", "--tokenizer", folder)
    builder = Builder(tmp_path / "e", "uint16")
    builder.add_document([], None)
    builder.finalize()
    refused("has no tokens", tmp_path / "e", "--tokenizer", folder)


@pytest.mark.parametrize("level", ["ours", "adopted"])
def test_ours_is_what_megatron_reads(tmp_path: Path, folder: Path, level: str) -> None:
    """Its reader: memory maps at offsets that follow from the counts, sequences by pointer, documents by index."""
    documents = [*random_documents(20, longest=40), np.empty(0, dtype=np.int64)]
    if level == "ours":
        write_corpus(tmp_path / "x", documents)
    else:
        write_corpus(tmp_path / "y", documents)
        Path(tmp_path / "y.json").unlink()
        assert run(tmp_path / "y", "--tokenizer", folder, "--output", tmp_path / "x") == 0
        documents = documents[:-1]
    with (tmp_path / "x.idx").open("rb") as stream:
        assert stream.read(9) == b"MMIDIDX\x00\x00"
        version, code, sequence_count, document_count = struct.unpack("<QBQQ", stream.read(25))
        offset = stream.tell()
    assert (version, code) == (1, 8)
    buffer = memoryview(np.memmap(tmp_path / "x.idx", mode="r", order="C"))
    sequence_lengths = np.frombuffer(buffer, dtype=np.int32, count=sequence_count, offset=offset)
    offset += sequence_lengths.nbytes
    sequence_pointers = np.frombuffer(buffer, dtype=np.int64, count=sequence_count, offset=offset)
    offset += sequence_pointers.nbytes
    document_indices = np.frombuffer(buffer, dtype=np.int64, count=document_count, offset=offset)
    assert offset + document_indices.nbytes == len(buffer)
    assert len(sequence_lengths) == document_indices[-1] == sequence_count
    tokens = memoryview(np.memmap(tmp_path / "x.bin", mode="r", order="C"))
    assert document_indices.tolist() == list(range(len(documents) + 1))
    for number, document in enumerate(documents):
        found = np.frombuffer(tokens, dtype=np.uint16, count=sequence_lengths[number], offset=sequence_pointers[number])
        assert np.array_equal(found, document)
