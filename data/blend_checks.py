"""Which corpora may be trained on together, and which may be held out from them."""

from collections.abc import Sequence

from data.corpus import Corpus
from data.sidecar import SplitFacts


def split_of(corpus: Corpus) -> SplitFacts:
    """Which side of a split by document it is."""
    assert corpus.dataset.sidecar is not None  # a Corpus has one
    return corpus.dataset.sidecar.split


def check_together(corpora: Sequence[Corpus]) -> None:
    """
    Errors: ValueError where the corpora of --data cannot be trained on, or not together.
    """
    first, seen = corpora[0], dict[str, str]()
    for corpus in corpora:
        prefix = corpus.dataset.prefix
        if split_of(corpus).part == "heldout":
            raise ValueError(
                f"--data {prefix} is the held-out part of a corpus, which is never trained on: give it to --eval_data, and "
                "to --data the part for training"
            )
        if corpus.fingerprint != first.fingerprint:
            raise ValueError(
                f"--data {first.dataset.prefix} and {prefix} were prepared with different vocabularies. "
                "Prepare both with the same --tokenizer"
            )
        if corpus.sha256 in seen:
            raise ValueError(
                f"--data {prefix} has the same contents as {seen[corpus.sha256]}: name the corpus once, with a weight "
                "where it is to be read more often than others"
            )
        seen[corpus.sha256] = prefix


def check_held_out(heldout: Corpus, corpora: Sequence[Corpus]) -> list[str]:
    """Warnings about corpora of --data that may contain documents of --eval_data.

    A split holds out the documents whose hash is below its share, so one of a larger share holds out all of a smaller one.
    Errors: ValueError where it is known that what --eval_data names is trained on, or cannot be compared.
    """
    prefix, split = heldout.dataset.prefix, split_of(heldout)
    if heldout.fingerprint != corpora[0].fingerprint:
        raise ValueError(
            f"--eval_data {prefix} and --data {corpora[0].dataset.prefix} were prepared with different vocabularies. "
            "Prepare both with the same --tokenizer"
        )
    for corpus in corpora:
        if corpus.sha256 == heldout.sha256:
            raise ValueError(
                f"--eval_data {prefix} has the same contents as --data {corpus.dataset.prefix}: a model is not tested on "
                "what it is trained on. Prepare held-out text, with another --output"
            )
    if split.part == "train":
        raise ValueError(
            f"--eval_data {prefix} is the part of a corpus that is for training: give its held-out part, or other text"
        )
    if split.part == "all":
        return []
    return [
        f"--data {corpus.dataset.prefix} was not prepared without the held-out {split.share:g} of documents: it may contain "
        f"some of those in --eval_data {prefix}, which then looks better than it is. Prepare it with the same split"
        for corpus in corpora
        if split_of(corpus).share < split.share
    ]
