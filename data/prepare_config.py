"""The flags of data.prepare. The parser needs nothing more, so nothing heavy is imported here."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from data.sources.options import SourceOptions

UnicodeForm = Literal["none", "NFC", "NFKC", "NFD", "NFKD"]


@dataclass(frozen=True, kw_only=True)
class OutputConfig:
    """Turn documents into a corpus that train.py reads, or check one with --verify."""

    input: tuple[str, ...] = ()
    """What to read: files, folders, globs, Hugging Face datasets (hf:NAME:CONFIG:SPLIT), or - for standard input."""

    tokenizer: str = ""
    """Tokenizer of the teacher: a Hugging Face folder, a tokenizer.json, vocab.txt, vocab.json or .model, or the name of a
    model on the hub."""

    train_vocab: int = 0
    """Train a vocabulary of this many tokens on the input instead of giving --tokenizer."""

    vocab_type: Literal["wordpiece", "bpe", "sentencepiece"] = "wordpiece"
    """Which kind of vocabulary --train_vocab trains: BERT's, RoBERTa's (byte-level) or SentencePiece."""

    output: str = ""
    """Prefix of the corpus to write, such as corpus/wiki."""

    max_bad_share: float = 0.01
    """Share of the records (bad JSON, bad UTF-8, empty, missing field, ...) that may give no document before this is an
    error. They are counted by reason, and named in OUTPUT.bad.jsonl."""

    workers: int = 0
    """Processes that tokenize; 0 means one for every core. Under mpirun or srun every rank is one."""

    overwrite: bool = False
    """Replace a complete corpus at --output."""

    verify: str = ""
    """Prefix of a corpus to check: sizes, sha256, every token and the tokenizer. Nothing is prepared."""

    def check(self) -> None:
        """Errors: ValueError naming the flag. No __post_init__, so that it is one line like every other error here."""
        if not self.input:
            raise ValueError("--input is empty, there is nothing to prepare. Give files, folders, globs, hf:NAME or -")
        if not self.output:
            raise ValueError("--output is empty. Give the prefix of the corpus to write, such as corpus/wiki")
        name = Path(self.output).name
        if self.output.endswith(("/", "/.", "/..")) or not name.isprintable() or not name:
            raise ValueError(
                f"--output {self.output!r} is no prefix of file names. Give one such as corpus/wiki, in printable characters"
            )
        if bool(self.tokenizer) == bool(self.train_vocab):
            raise ValueError(
                f"--tokenizer {self.tokenizer or '(none)'} and --train_vocab {self.train_vocab}: give exactly one of them, "
                "the teacher's tokenizer or the size of a new vocabulary"
            )
        if self.train_vocab < 0 or self.workers < 0:
            raise ValueError(f"--train_vocab {self.train_vocab} and --workers {self.workers} cannot be negative")
        if not 0.0 <= self.max_bad_share <= 1.0:
            raise ValueError(f"--max_bad_share {self.max_bad_share}: a share from 0 to 1 is needed, for example 0.01")


@dataclass(frozen=True, kw_only=True)
class CleaningConfig:
    """What to leave out of the corpus, each counted by reason in PREFIX.json."""

    min_tokens: int = 1
    """Drop documents of fewer tokens ([CLS] and [SEP] not counted)."""

    max_unknown_share: float = 0.5
    """Drop documents in which this share of the tokens, or more, is unknown; 0.5 is the original recipe's. 1 keeps all
    but those without any known token."""

    normalize: UnicodeForm = "none"
    """Unicode normalisation of the text, before anything else sees it. Most tokenizers do their own."""

    deduplicate: bool = False
    """Drop documents whose text is exactly that of an earlier one."""

    heldout_share: float = 0.0
    """Share of the documents, chosen by a hash of their text, that goes to OUTPUT-heldout instead, a corpus that train.py
    refuses to train on. A larger share holds out all that a smaller one does, in any corpus."""

    def check(self) -> None:
        """Errors: ValueError naming the flag."""
        if self.min_tokens < 1:
            raise ValueError(f"--min_tokens {self.min_tokens}: a document has at least 1 token")
        if not 0.0 < self.max_unknown_share <= 1.0:
            raise ValueError(
                f"--max_unknown_share {self.max_unknown_share}: a share above 0 and up to 1 is needed; 0.5 is usual"
            )
        if not 0.0 <= self.heldout_share <= 0.5:
            raise ValueError(f"--heldout_share {self.heldout_share}: a share from 0 to 0.5 is needed, for example 0.01")

    def of_one_document(self) -> dict[str, Any]:
        """What decides the parts of a preparation; the rest acts when they are merged."""
        return {
            "min_tokens": self.min_tokens,
            "max_unknown_share": self.max_unknown_share,
            "normalize": self.normalize,
            "digests": self.needs_digests,
        }

    @property
    def needs_digests(self) -> bool:
        return self.deduplicate or self.heldout_share > 0


@dataclass(frozen=True, kw_only=True)
class PrepareConfig:
    """Every flag of this command, each declared beside its owner."""

    output: OutputConfig
    sources: SourceOptions
    cleaning: CleaningConfig
