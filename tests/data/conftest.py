"""Fixtures shared by the tests of data/: a random corpus and a small trained tokenizer."""

from pathlib import Path

import pytest

from data.batching import Corpus
from data.tokenizer import Tokenizer
from data.train_tokenizer import train_wordpiece
from tests.data.helpers import random_documents, random_texts, write_corpus


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """About 400 sequences of at most 32 tokens, from documents of up to 90."""
    prefix = tmp_path_factory.mktemp("corpus") / "small"
    write_corpus(prefix, random_documents(200, longest=90))
    return Corpus.open(prefix, max_length=32)


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    """An uncased WordPiece vocabulary of 400 tokens."""
    return train_wordpiece(random_texts(300), 400)


@pytest.fixture(scope="session")
def tokenizer_folder(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    tokenizer.save(folder)
    return folder
