"""All targets by name. To add one: a function of bytes that raises for what must not happen, seeds, and a line here."""

from collections.abc import Callable

from tests.fuzz.checkpoint import checkpoint_target
from tests.fuzz.corpus import corpus_target
from tests.fuzz.sources import sources_target
from tests.fuzz.target import Target
from tests.fuzz.tokenizer import tokenizer_target

TARGETS: dict[str, Callable[[], Target]] = {
    "corpus": corpus_target,
    "tokenizer": tokenizer_target,
    "checkpoint": checkpoint_target,
    "sources": sources_target,
}
