"""The thread that prepares micro-batches while the device computes.

One bounded queue between a producer thread and the training loop; `wait_seconds` is what the loop lost to it.
"""

import queue
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType

from data.batch import Batch, make_batch
from data.windows import UpdateWindows, Window, assign

_POLL_SECONDS = 0.1  # how soon the producer notices that nobody wants its batches any more


@dataclass(frozen=True)
class _Failure:
    error: BaseException


class BatchLoader:
    """This rank's micro-batches of the updates [first_update, last_update), prepared ahead.

        with BatchLoader(windows, rank=0, num_ranks=1, ...) as loader:
            for window, micro_batches in loader:
                for batch in micro_batches:
                    ...

    Of an update's num_ranks x num_micro_batches bins, micro-batch a of rank r is bin a * num_ranks + r: which sequences and
    masks an update has does not depend on the split. Micro-batches that the loop leaves unread are skipped.

    wait_seconds: time the loop has spent waiting for a batch, in total.
    Errors: ValueError when the sequences of an update do not divide into ranks and micro-batches; an error in the thread is
    raised in the loop, with its traceback.
    """

    def __init__(
        self,
        windows: UpdateWindows,
        *,
        rank: int,
        num_ranks: int,
        sequences_per_micro_batch: int,
        first_update: int,
        last_update: int,
        prefetch: int = 4,
        mask_smoothing: float = 0.7,
        pin_memory: bool = False,
    ) -> None:
        sequences_per_step = num_ranks * sequences_per_micro_batch
        if sequences_per_step < 1 or windows.sequences_per_update % sequences_per_step:
            raise ValueError(
                f"{windows.sequences_per_update} sequences per update is not a multiple of {num_ranks} ranks x "
                f"{sequences_per_micro_batch} sequences per micro-batch = {sequences_per_step}. Change train_batch_size or "
                "train_micro_batch_size_per_gpu in the DeepSpeed JSON"
            )
        self.num_micro_batches = windows.sequences_per_update // sequences_per_step
        self.wait_seconds = 0.0
        self._windows, self._rank, self._num_ranks = windows, rank, num_ranks
        self._updates = range(first_update, last_update)
        self._pin_memory = pin_memory
        self._masker = windows.blend.masker(
            seed=windows.seed, probability=windows.mask_probability, smoothing=mask_smoothing
        )
        self._queue: queue.Queue[Window | Batch | _Failure] = queue.Queue(maxsize=max(1, prefetch))
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._produce, name="batches", daemon=True)

    def __enter__(self) -> "BatchLoader":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop the thread; safe to call twice."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def __iter__(self) -> Iterator[tuple[Window, Iterator[Batch]]]:
        """Each update's window and its micro-batches. A loader is read once."""
        if self._thread.ident is not None or self._stop.is_set():
            raise RuntimeError("a BatchLoader is read once; make another one from the update to continue with")
        self._thread.start()
        try:
            for _ in self._updates:
                window = self._next()
                assert isinstance(window, Window)
                micro_batches = self._micro_batches()
                yield window, micro_batches
                for _unread in micro_batches:
                    pass
        finally:
            self.close()

    def _micro_batches(self) -> Iterator[Batch]:
        for _ in range(self.num_micro_batches):
            batch = self._next()
            assert isinstance(batch, Batch)
            yield batch

    def _next(self) -> Window | Batch:
        started = time.perf_counter()
        item = self._queue.get()
        self.wait_seconds += time.perf_counter() - started
        if isinstance(item, _Failure):
            raise item.error
        return item

    def _produce(self) -> None:
        try:
            for update in self._updates:
                window = self._windows.window(update)
                bins = assign(window.lengths, self._num_ranks * self.num_micro_batches)
                if not self._put(window):
                    return
                for members in bins[self._rank :: self._num_ranks]:
                    batch = make_batch(
                        self._windows.blend, self._masker, window.sequence_ids[members], window.epochs[members]
                    )
                    if not self._put(batch.pin_memory() if self._pin_memory else batch):
                        return
        except BaseException as error:
            self._put(_Failure(error))

    def _put(self, item: Window | Batch | _Failure) -> bool:
        """Hand an item over, or report that nobody wants it any more."""
        while not self._stop.is_set():
            try:
                self._queue.put(item, timeout=_POLL_SECONDS)
                return True
            except queue.Full:
                continue
        return False
