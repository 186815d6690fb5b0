"""The memory-mapped corpus, read: PREFIX.bin (raw tokens) and PREFIX.idx (data/index_file.py).

The .bin holds little-endian token ids, document after document. A corpus that anyone else wrote is checked before it is
believed: every number of the .idx is validated, once for the same files in the same place (data/counts_file.py). Beside them
stand PREFIX.json (data/sidecar.py) and PREFIX.token_counts.npy.
"""

import io
from pathlib import Path

import numpy as np
import numpy.typing as npt

from data.index_file import DTYPES, Index, Int64, check_index
from data.mapped_file import MappedFile
from data.sidecar import Sidecar, read_sidecar

_UINT16_VOCABULARY = 65500  # Megatron's limit: below it, ids fit 16 bits with room to spare
_PREPARE_AGAIN = "Prepare the corpus again with python -m data.prepare"


def corpus_file(prefix: str | Path, suffix: str) -> Path:
    """PREFIX + suffix; not Path.with_suffix, because a prefix may contain dots."""
    return Path(f"{prefix}{suffix}")


def token_dtype(vocab_size: int) -> np.dtype:
    """uint16 while the vocabulary fits (below 65,500), else int32."""
    return DTYPES[8] if vocab_size < _UINT16_VOCABULARY else DTYPES[4]


class IndexedDataset:
    """A corpus on disk, opened for reading; pages are read when tokens are touched.

    dtype: of a stored token. tokens (N,): the whole .bin, mapped. index: the .idx, checked, whose `locate` finds documents
    in `tokens`. sidecar: what PREFIX.json says, or None where there is none (a corpus made by Megatron-LM's tools).

    Without `check` the numbers of the .idx are left unread: call `check` or `believe` next.
    Errors: FileNotFoundError for a missing file, ValueError naming file and field for anything malformed.
    """

    num_tokens: int

    def __init__(self, prefix: str | Path, *, check: bool = True) -> None:
        self.prefix = str(prefix)
        bin_path, idx_path = corpus_file(prefix, ".bin"), corpus_file(prefix, ".idx")
        for path in (idx_path, bin_path):
            if not path.is_file():
                raise FileNotFoundError(
                    f"no corpus at '{prefix}' (looked for {path}). "
                    f"Prepare one: python -m data.prepare --input FILE... --tokenizer FOLDER --output {prefix}"
                )
        self.sidecar: Sidecar | None = read_sidecar(prefix)
        self._bin = MappedFile(bin_path)
        if self.sidecar:
            self._check_size(bin_path, self.sidecar.bin.size)
            self._check_size(idx_path, self.sidecar.idx.size)
        self.index = Index(idx_path)
        self.dtype, self.num_documents = self.index.dtype, self.index.num_documents
        if self._bin.size % self.dtype.itemsize:
            raise ValueError(
                f"{bin_path} has {self._bin.size} bytes, no multiple of a token's {self.dtype.itemsize}: truncated? "
                "Copy or prepare it again"
            )
        self.tokens: npt.NDArray[np.integer] = self._bin.bytes.view(self.dtype)
        self._bytes = self._bin.bytes.data
        self.is_checked = False
        if check:
            self.check()

    def check(self) -> None:
        """Validate every number of the .idx. Errors: ValueError naming file and field."""
        self.believe(check_index(self.index, self._bin.path, self._bin.size), self.index.is_one_to_one)

    def believe(self, num_tokens: int, is_one_to_one: bool) -> None:
        """Take over what `check` found earlier about the same files. Errors: ValueError where PREFIX.json says otherwise."""
        self.num_tokens, self.index.is_one_to_one = num_tokens, is_one_to_one
        self._check_sidecar()
        self.is_checked = True

    def identity(self) -> tuple[object, ...]:
        """What tells these files from any others, and from themselves before they were changed."""
        hashes = (self.sidecar.bin.sha256, self.sidecar.idx.sha256) if self.sidecar else ()
        return (self._bin.identity, self.index.file.identity, *hashes)

    def prefetch(self, starts: Int64, lengths: Int64) -> None:
        """Ask for stretches (S,) of `tokens` without waiting."""
        itemsize = self.dtype.itemsize
        self._bin.prefetch(starts * itemsize, (starts + lengths) * itemsize)

    def expect_random_reads(self, is_random: bool = True) -> None:
        """See `MappedFile.expect_random_reads`."""
        for file in (self._bin, self.index.file):
            file.expect_random_reads(is_random)

    def framed(self, starts: Int64, lengths: Int64) -> npt.NDArray[np.integer]:
        """Stretches (S,) of `tokens`, within which they must lie, each between two zeros: (sum(lengths) + 2 S,)."""
        itemsize = self.dtype.itemsize
        first, last = (starts * itemsize).tolist(), ((starts + lengths) * itemsize).tolist()
        stretches = map(self._bytes.__getitem__, map(slice, first, last))  # neither copied nor read yet
        joined = bytes(2 * itemsize).join([b"", *stretches, b""])
        return np.frombuffer(joined, self.dtype)[1:-1]

    def check_unchanged(self) -> None:
        """ValueError when a file has shrunk or grown since it was opened; ask before reading. Two fstat."""
        self._bin.check()
        self.index.file.check()

    def token_counts(self) -> Int64:
        """How often each token occurs, (V,) int64, from PREFIX.token_counts.npy. Errors: ValueError, FileNotFoundError."""
        if self.sidecar is None:
            raise ValueError(f"{self.prefix}.json is missing, and with it the size of the vocabulary. {_PREPARE_AGAIN}")
        return read_token_counts(self.prefix, self.sidecar.tokenizer.vocab_size, self.num_tokens)

    def _check_size(self, path: Path, expected: int) -> None:
        """A file cut short by a copy is named here, before its numbers are read."""
        if path.stat().st_size != expected:
            raise ValueError(
                f"{path} has {path.stat().st_size} bytes, but {self.prefix}.json says {expected}: an incomplete copy? "
                "Copy or prepare it again"
            )

    def _check_sidecar(self) -> None:
        if self.sidecar is None:
            return
        for field, found, expected in (
            ("dtype", self.dtype.name, self.sidecar.dtype),
            ("documents", self.num_documents, self.sidecar.documents),
            ("tokens", self.num_tokens, self.sidecar.tokens),
        ):
            if found != expected:
                raise ValueError(
                    f"{self.index.path}: {field} is {found}, but {self.prefix}.json says {expected}. They belong to "
                    "different corpora; prepare the corpus again"
                )


def read_token_counts(prefix: str | Path, vocab_size: int, num_tokens: int) -> Int64:
    """PREFIX.token_counts.npy, (V,) int64, which must sum to the corpus's tokens. Errors: ValueError, FileNotFoundError.

    Not np.load, which evaluates the header and allocates what it claims: one header is right, and its bytes are known.
    """
    path = corpus_file(prefix, ".token_counts.npy")
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: masking needs the token counts. {_PREPARE_AGAIN}")
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<i8", "fortran_order": False, "shape": (vocab_size,)})
    size = header.tell() + 8 * vocab_size
    with path.open("rb") as file:
        if path.stat().st_size != size or file.read(header.tell()) != header.getvalue():
            raise ValueError(
                f"{path} is no .npy file of {vocab_size} int64 counts, {size} bytes, as the vocabulary in {prefix}.json "
                f"demands. {_PREPARE_AGAIN}"
            )
        counts = np.frombuffer(file.read(), dtype=np.int64)
    # Added up as Python integers, which do not wrap.
    if counts.min() < 0 or sum(counts.tolist()) != num_tokens:
        raise ValueError(f"{path} does not count the {num_tokens} tokens of {prefix}.bin. {_PREPARE_AGAIN}")
    return counts
