"""Targets of the data path: a whole corpus, an index that others wrote.

Beside them stands what they should read, from the description of the formats alone.
"""

import hashlib
import itertools
import json
import struct
import zlib
from pathlib import Path

import numpy as np

from data import counts_file
from data.blend import Blend
from data.corpus import Corpus
from data.indexed_dataset import IndexedDataset
from data.verify import verify
from data.windows import UpdateWindows
from tests.data.helpers import VOCAB_SIZE, documents_of, random_documents, small_tokenizer, write_corpus
from tests.fuzz.target import Folder, Target, pack, unpack

_ENDS = (".idx", ".bin", ".json", ".token_counts.npy")
_MAX_LENGTH = 7
_CACHE = f"x.cache/{_MAX_LENGTH}"
_MOST_TOKENS = 5_000  # of an input that is read whole: overlapping documents can claim any number


def documents_by_hand(idx: bytes, tokens: bytes) -> list[tuple[int, ...]] | None:
    """The documents of a corpus as the format describes them, or None where the description is violated."""
    if len(idx) < 34 or idx[:9] != b"MMIDIDX\x00\x00":
        return None
    version, code, num_sequences, num_indices = struct.unpack_from("<QBQQ", idx, 9)
    if version != 1 or code not in (4, 8) or num_indices < 1 or len(idx) != 34 + 12 * num_sequences + 8 * num_indices:
        return None
    letter, width = {4: ("i", 4), 8: ("H", 2)}[code]
    if len(tokens) % width:
        return None
    lengths = struct.unpack_from(f"<{num_sequences}i", idx, 34)
    pointers = struct.unpack_from(f"<{num_sequences}q", idx, 34 + 4 * num_sequences)
    indices = struct.unpack_from(f"<{num_indices}q", idx, 34 + 12 * num_sequences)
    ids = struct.unpack(f"<{len(tokens) // width}{letter}", tokens)
    for length, pointer in zip(lengths, pointers, strict=True):
        if length < 0 or pointer < 0 or pointer % width or pointer + length * width > len(tokens):
            return None
    if indices[0] != 0 or indices[-1] != num_sequences or list(indices) != sorted(indices):
        return None
    documents = []
    for first, last in itertools.pairwise(indices):
        for before in range(first, last - 1):
            if pointers[before] + lengths[before] * width != pointers[before + 1]:
                return None
        start = pointers[first] // width if last > first else 0
        documents.append(ids[start : start + sum(lengths[first:last])])
    return documents


class CorpusFiles:
    """A folder with a corpus in it, whose files an input replaces."""

    def __init__(self) -> None:
        self.folder = Folder("corpus")
        self.prefix = self.folder.path / "x"
        write_corpus(self.prefix, [*random_documents(6, longest=12), np.empty(0, dtype=np.int64)])
        # The right tokenizer outside the corpus's folder, and a link to it inside: what PREFIX.json must not reach.
        outside = self.folder.path.parent / "x.tokenizer"
        small_tokenizer().save(outside)
        (self.folder.path / "link").symlink_to(outside)
        self.files = {end: Path(f"{self.prefix}{end}").read_bytes() for end in _ENDS}
        counts_file.SMALLEST = 0  # remembered however small they are
        (self.folder.path / _CACHE).parent.mkdir()

    def run(self, data: bytes) -> bool:
        """A corpus: one byte that says what is made consistent again after the damage, then its four files, then damage to
        what opening it leaves behind."""
        repairs, idx, tokens, sidecar, counts, damage = unpack(data, 6)
        documents = documents_by_hand(idx, tokens)
        sidecar = _repaired(sidecar, idx, tokens, documents, repairs[0] if repairs else 0)
        for end, content in zip(_ENDS, (idx, tokens, sidecar, counts), strict=True):
            self.folder.write(f"x{end}", content)
        (self.folder.path / _CACHE).unlink(
            missing_ok=True
        )  # the files' times do not tell inputs of the same millisecond apart
        dataset = self.folder.attempt(lambda: IndexedDataset(self.prefix))
        if dataset is None:
            assert documents is None or sidecar or not (idx and tokens), "a good corpus was refused"
            assert self.folder.attempt(lambda: verify(self.prefix)) is None
            return False
        assert documents is not None, "a bad index was accepted"
        assert dataset.num_tokens == sum(map(len, documents))
        if dataset.num_tokens > _MOST_TOKENS:
            return True
        assert documents_of(dataset) == [list(document) for document in documents]
        corpus = self.folder.attempt(lambda: Corpus(dataset, max_length=_MAX_LENGTH))
        if corpus is not None:
            self.read(corpus, documents, counts)
            self.read_again(documents, counts, damage, is_forged=bool(repairs) and bool(repairs[0] & 4))
        verified = self.folder.attempt(lambda: verify(self.prefix))
        if verified is not None:
            facts = json.loads(sidecar)
            assert facts["bin"] == {"size": len(tokens), "sha256": hashlib.sha256(tokens).hexdigest()}
            assert facts["idx"] == {"size": len(idx), "sha256": hashlib.sha256(idx).hexdigest()}
            assert facts["tokenizer"]["files"] == "x.tokenizer", "a tokenizer from elsewhere was accepted"
            stored = dataset.tokens.astype(np.int64)
            assert np.array_equal(np.bincount(stored, minlength=VOCAB_SIZE), dataset.token_counts())
        return True

    def read_again(self, documents: list[tuple[int, ...]], counts: bytes, damage: bytes, is_forged: bool) -> None:
        """With what the first opening left behind, which is damaged, or forged so that its checksums fit."""
        path = self.folder.path / _CACHE
        damaged = _damaged(path.read_bytes(), damage, is_forged)
        path.unlink()  # never in place: the first corpus has it mapped
        path.write_bytes(damaged)
        corpus = self.folder.attempt(lambda: Corpus.open(self.prefix, max_length=_MAX_LENGTH))
        if not is_forged:
            assert corpus is not None, "damage to what can be made anew is no reason to refuse a corpus"
            self.read(corpus, documents, counts)
        elif corpus is not None:
            for number in {0, 1, corpus.num_sequences // 2, corpus.num_sequences - 1} & {*range(corpus.num_sequences)}:
                lengths = self.folder.attempt(lambda number=number: corpus.lengths([number]))
                assert lengths is None or 3 <= lengths[0] <= _MAX_LENGTH
                packed = self.folder.attempt(lambda number=number: corpus.packed([number]))
                assert packed is None or 0 <= packed[0].min() <= packed[0].max() < corpus.vocab_size

    def read(self, corpus: Corpus, documents: list[tuple[int, ...]], counts: bytes) -> None:
        """What training reads, against the documents cut by hand."""
        piece = _MAX_LENGTH - 2
        pieces = [document[at : at + piece] for document in documents for at in range(0, len(document), piece)]
        everything = np.arange(corpus.num_sequences)
        assert corpus.lengths(everything).tolist() == [len(tokens) + 2 for tokens in pieces]
        window = UpdateWindows(Blend([corpus]), sequences_per_update=4, seed=1, mask_probability=0.15).window(3)
        assert window.lengths.tolist() == [len(pieces[number]) + 2 for number in window.sequence_ids]
        packed = self.folder.attempt(lambda: corpus.packed(everything))
        is_readable = all(0 <= token < corpus.vocab_size for tokens in pieces for token in tokens)
        assert (packed is not None) == is_readable
        masker = self.folder.attempt(lambda: corpus.masker(seed=1, probability=0.15, smoothing=0.7))
        if masker is not None:
            counted = np.frombuffer(counts[-8 * corpus.vocab_size :], dtype="<i8").tolist()
            assert min(counted) >= 0
            assert sum(counted) == sum(map(len, documents))
        if packed is None:
            return
        facts = corpus.tokenizer
        assert packed[0].tolist() == [t for tokens in pieces for t in (facts.cls_id, *tokens, facts.sep_id)]
        if masker is not None:
            corrupted, positions, labels = masker(*packed, everything, np.zeros_like(everything))
            assert 0 <= corrupted.min() <= corrupted.max() < corpus.vocab_size
            assert np.array_equal(packed[0][positions], labels)

    def seeds(self) -> list[bytes]:
        """As prepare leaves it, and with two stored sequences to a document; with PREFIX.json and without, as others do."""
        idx, tokens, sidecar, counts = (self.files[end] for end in _ENDS)
        split = _index_of_halves(documents_by_hand(idx, tokens) or [], code=8)
        wide = _index_of_halves(documents_by_hand(idx, tokens) or [], code=4)
        wide_tokens = np.frombuffer(tokens, dtype="<u2").astype("<i4").tobytes()
        complete = [pack([bytes([repairs]), idx, tokens, sidecar, counts, b""]) for repairs in (0, 3)]
        complete.append(pack([b"\x03", split, tokens, sidecar, counts, b""]))
        for repairs, cut in ((0, b""), (4, b""), (0, b"\x10\x01")):
            damage = struct.pack("<HBHBHB", 80, 1, 4100, 255, 65, 1) + cut
            complete += [pack([bytes([repairs | 3]), index, tokens, sidecar, counts, damage]) for index in (idx, split)]
        by_others = ((idx, tokens), (split, tokens), (wide, wide_tokens))
        return complete + [pack([b"\x00", *files, b"", b"", b""]) for files in by_others]


def _damaged(content: bytes, damage: bytes, is_forged: bool) -> bytes:
    """Bits turned over at places of 16 bits, three bytes each; a remainder of two is a size to cut to. Forged: the checksums
    are made to fit again, as they stand for one page.
    """
    changed = bytearray(content)
    for at, bits in struct.iter_unpack("<HB", damage[: len(damage) // 3 * 3]):
        changed[at % len(changed)] ^= bits
    if is_forged:
        tables = 72 + 16
        struct.pack_into("<I", changed, tables, zlib.crc32(changed[4096:]))
        struct.pack_into("<I", changed, tables + 4, zlib.crc32(changed[: tables + 4]))
    cut = damage[len(damage) // 3 * 3 :]
    return bytes(changed[: int.from_bytes(cut, "little")] if len(cut) == 2 else changed)


def _index_of_halves(documents: list[tuple[int, ...]], code: int) -> bytes:
    """The .idx of documents that lie end to end, each but the empty ones stored as two sequences."""
    lengths, indices = [], [0]
    for document in documents:
        lengths += [len(document) // 2, len(document) - len(document) // 2] if document else []
        indices.append(len(lengths))
    width = {4: 4, 8: 2}[code]
    pointers = [width * sum(lengths[:number]) for number in range(len(lengths))]
    header = b"MMIDIDX\x00\x00" + struct.pack("<QBQQ", 1, code, len(lengths), len(indices))
    layout = f"<{len(lengths)}i{len(lengths)}q{len(indices)}q"
    return header + struct.pack(layout, *lengths, *pointers, *indices)


def _repaired(sidecar: bytes, idx: bytes, tokens: bytes, documents: list | None, repairs: int) -> bytes:
    """PREFIX.json with the sizes and hashes (1) and the totals (2) of the files as they are, to meet the deeper checks."""
    try:
        record = json.loads(sidecar)
        if repairs & 1:
            record["bin"] = {"size": len(tokens), "sha256": hashlib.sha256(tokens).hexdigest()}
            record["idx"] = {"size": len(idx), "sha256": hashlib.sha256(idx).hexdigest()}
        if repairs & 2 and documents is not None:
            record |= {"documents": len(documents), "tokens": sum(map(len, documents))}
        return json.dumps(record).encode() if repairs & 3 else sidecar
    except (ValueError, TypeError, RecursionError):
        return sidecar


def corpus_target() -> Target:
    files = CorpusFiles()
    return Target(run=files.run, seeds=files.seeds(), num_parts=6)
