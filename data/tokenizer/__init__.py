"""Tokenizers from files or the hub, as the data path needs them: texts to ids, without special tokens, never cut.

WordPiece (BERT), byte-level BPE (RoBERTa) and SentencePiece (ALBERT, XLM-R) behind one protocol, `Tokenizer`. The words are
taken apart by Hugging Face's `tokenizers` and by `sentencepiece`; this package finds the files, knows the special tokens,
reads each distinct word once, and gives the vocabulary a fingerprint that a corpus and a model can be compared by.
"""

from data.tokenizer.backend import byte_level_bpe, wordpiece
from data.tokenizer.base import Tokenizer
from data.tokenizer.files import TOKENIZER_FILES
from data.tokenizer.loading import load_tokenizer, vocabulary_fingerprint

__all__ = ["TOKENIZER_FILES", "Tokenizer", "byte_level_bpe", "load_tokenizer", "vocabulary_fingerprint", "wordpiece"]
