"""How the preparation of a corpus is going: a bar on a terminal, a line every few seconds in a log."""

import sys
import time

from tqdm import tqdm

from data.sources import InputProgress

_SECONDS_BETWEEN_LINES = 10.0


class ProgressReport:
    """Reports on stderr; `update` is cheap enough to call for every chunk."""

    def __init__(self, read: InputProgress) -> None:
        self._read = read
        self._started = self._last_line = time.monotonic()
        self._bar: tqdm | None = None
        if sys.stderr.isatty():
            # tqdm draws without colours, so NO_COLOR needs nothing more.
            self._bar = tqdm(total=read.total_bytes, unit="B", unit_scale=True, desc="prepare", mininterval=0.2)

    @property
    def seconds(self) -> float:
        return max(time.monotonic() - self._started, 1e-6)

    def update(self, documents: int, tokens: int) -> None:
        """So many documents and tokens have been written."""
        if self._bar is not None:
            self._bar.set_postfix_str(f"{_figures(documents, tokens, self.seconds)}", refresh=False)
            self._bar.update(self._read.bytes_read - self._bar.n)
        elif time.monotonic() - self._last_line >= _SECONDS_BETWEEN_LINES:
            self._last_line = time.monotonic()
            share = self._read.bytes_read / max(self._read.total_bytes, 1)
            left = f", {_clock(self.seconds * (1 - share) / share)} left" if share else ""
            line = f"prepare: {share:.0%} of the input, {_figures(documents, tokens, self.seconds)}{left}"
            print(line, file=sys.stderr, flush=True)

    def close(self) -> None:
        """Leave the terminal's line to whoever writes next."""
        if self._bar is not None:
            self._bar.close()


def _figures(documents: int, tokens: int, seconds: float) -> str:
    return f"{documents:,} documents, {tokens:,} tokens, {tokens / seconds:,.0f} tokens/s"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
