"""Documents -> token ids on many processes, in order.

The parent cuts the stream of documents into chunks of bounded size, hands out a bounded number of them, and takes the
results back in the order it gave them out: the result does not depend on how many workers there are.
"""

import os
import signal
import threading
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context, parent_process
from multiprocessing.connection import wait

import numpy as np
import numpy.typing as npt

from data.tokenizer import Tokenizer

# A tenth of a second of work or so: long against the cost of handing it over, short against waiting for the last one.
_CHARACTERS_PER_CHUNK = 1 << 18
_DOCUMENTS_PER_CHUNK = 4096
_CHUNKS_PER_WORKER = 3  # one being worked on, one on its way there, one on its way back


@dataclass(frozen=True)
class EncodedChunk:
    """Some consecutive documents: their tokens end to end (N,), their lengths, and how many were dropped and why."""

    tokens: npt.NDArray[np.integer]
    lengths: npt.NDArray[np.int64]
    dropped: dict[str, int]


def encode_documents(
    documents: Iterable[str], tokenizer: Tokenizer, dtype: np.dtype, workers: int
) -> Generator[EncodedChunk, None, None]:
    """The documents' tokens, in order, with `workers` processes; with one, in this process.

    Errors: those of `documents`; ChildProcessError when a worker dies.
    """
    # Rust threads inside every worker would fight over the same cores.
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    chunks = _chunks(documents)
    if workers == 1:
        for chunk in chunks:
            yield _encode(chunk, tokenizer, dtype)
        return
    # Spawned, not forked: the parent has threads, and a fork would copy whatever lock they hold.
    pool = ProcessPoolExecutor(workers, get_context("spawn"), _start_worker, (tokenizer, dtype))
    pending: deque[Future[EncodedChunk]] = deque()
    try:
        for chunk in chunks:
            pending.append(pool.submit(_encode_in_worker, chunk))
            if len(pending) >= _CHUNKS_PER_WORKER * workers:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    except BrokenProcessPool as error:
        raise ChildProcessError(
            "a worker process died, most likely for lack of memory. Try again with fewer: --workers 1"
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _chunks(documents: Iterable[str]) -> Iterator[list[str]]:
    """Consecutive documents, as many as fit a chunk; one that is longer is a chunk of its own."""
    chunk: list[str] = []
    characters = 0
    for text in documents:
        if chunk and (characters + len(text) > _CHARACTERS_PER_CHUNK or len(chunk) == _DOCUMENTS_PER_CHUNK):
            yield chunk
            chunk, characters = [], 0
        chunk.append(text)
        characters += len(text)
    if chunk:
        yield chunk


def _encode(texts: list[str], tokenizer: Tokenizer, dtype: np.dtype) -> EncodedChunk:
    """Encode a chunk, dropping documents in which there is nothing to learn from."""
    present = [text for text in texts if text and not text.isspace()]
    tokens, lengths = tokenizer.encode_packed(present, dtype)
    dropped = {"empty": len(texts) - len(present), "no_tokens": int((lengths == 0).sum())}
    return EncodedChunk(tokens, lengths[lengths > 0], dropped)


# What a worker process holds for all its chunks; pickling it with each of them would cost more than the work.
_worker: tuple[Tokenizer, np.dtype] | None = None


def _start_worker(tokenizer: Tokenizer, dtype: np.dtype) -> None:
    global _worker
    _worker = tokenizer, dtype
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process of a terminal; the parent answers it
    threading.Thread(target=_die_with_parent, daemon=True).start()


def _die_with_parent() -> None:
    """A parent that is killed cannot say so; without this its workers would wait for chunks for ever."""
    parent = parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)


def _encode_in_worker(texts: list[str]) -> EncodedChunk:
    assert _worker is not None
    return _encode(texts, *_worker)
