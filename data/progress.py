"""How the preparation of a corpus is going: a bar on a terminal, a line every few seconds in a log."""

import sys
import time

from tqdm import tqdm

_SECONDS_BETWEEN_LINES = 10.0


class ProgressReport:
    """Reports on stderr; `add` is cheap enough to call for every chunk. total: bytes of input, as stored."""

    def __init__(self, total: int) -> None:
        self.total, self.read, self.documents, self.tokens = max(total, 1), 0, 0, 0
        self._started = self._last_line = time.monotonic()
        self._bar: tqdm | None = None
        if sys.stderr.isatty():
            # tqdm draws without colours, so NO_COLOR needs nothing more.
            self._bar = tqdm(total=total, unit="B", unit_scale=True, desc="prepare", mininterval=0.2)

    @property
    def seconds(self) -> float:
        return max(time.monotonic() - self._started, 1e-6)

    def add(self, read: int, documents: int, tokens: int) -> None:
        """So many bytes have been read, documents and tokens encoded, since the last call."""
        self.read, self.documents, self.tokens = self.read + read, self.documents + documents, self.tokens + tokens
        if self._bar is not None:
            self._bar.set_postfix_str(self._figures(), refresh=False)
            self._bar.update(read)
        elif time.monotonic() - self._last_line >= _SECONDS_BETWEEN_LINES:
            self._last_line = time.monotonic()
            share = min(self.read / self.total, 1.0)
            left = f", {_clock(self.seconds * (1 - share) / share)} left" if share else ""
            print(f"prepare: {share:.0%} of the input, {self._figures()}{left}", file=sys.stderr, flush=True)

    def close(self) -> None:
        """Leave the terminal's line to whoever writes next."""
        if self._bar is not None:
            self._bar.close()

    def _figures(self) -> str:
        return f"{self.documents:,} documents, {self.tokens:,} tokens, {self.tokens / self.seconds:,.0f} tokens/s"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
