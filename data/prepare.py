"""The command that turns documents into a corpus, on many processes or many nodes.

    python -m data.prepare --input wiki/*.jsonl.xz --tokenizer bert-base-uncased --output corpus/wiki
    mpirun -n 64 python -m data.prepare --input wiki/*.jsonl.xz --tokenizer bert-base-uncased --output corpus/wiki
    python -m data.prepare --verify corpus/wiki

Writes PREFIX.bin, PREFIX.idx, PREFIX.token_counts.npy, PREFIX.tokenizer/ and, last, PREFIX.json. The files are the same,
byte for byte, for any number of processes or ranks. A preparation that was stopped goes on where it was when the same
command is given again. Exit codes: 0 done, 2 bad input (one line on stderr says which), 130 interrupted.
"""

import contextlib
import os
import signal
import sys
import traceback
from collections.abc import Iterator
from types import FrameType
from typing import TYPE_CHECKING

from command_line import is_first_rank, parse
from data.prepare_config import PrepareConfig

# The parser needs nothing more; everything heavy is imported in the functions that do the work, so that --help is instant.
if TYPE_CHECKING:
    from data.crew import Crew

_BAD_INPUT = 2
_INTERRUPTED = 130  # what a shell reports for Ctrl-C


def run(config: PrepareConfig, crew: "Crew") -> None:
    """Prepare or verify. Errors: ValueError, OSError; SystemExit in ranks that another one's error ends."""
    if config.output.verify:
        crew.from_first(lambda: _verify(config.output.verify))
        return
    from data.preparation import prepare
    from data.prepare_plan import Request

    given = config.output
    request = Request(
        inputs=given.input,
        sources=config.sources,
        tokenizer=given.tokenizer,
        train_vocab=given.train_vocab,
        vocab_type=given.vocab_type,
        cleaning=config.cleaning,
        max_bad_share=given.max_bad_share,
        output=given.output,
        overwrite=given.overwrite,
    )
    prepare(request, crew)


def _check(config: PrepareConfig) -> None:
    if not config.output.verify:
        for part in (config.output, config.sources, config.cleaning):
            part.check()


def _crew(workers: int) -> "Crew":
    """Errors: ValueError."""
    from data.mpi_crew import MpiCrew, is_launched_by_mpi

    if is_launched_by_mpi(os.environ):
        if workers > 1:
            raise ValueError(f"--workers {workers} under mpirun or srun: every rank is one process, give it more ranks")
        return MpiCrew()
    from data.crew import LocalCrew

    return LocalCrew(workers or _num_cores())


def _num_cores() -> int:
    """Cores this process may use, which on a shared node are fewer than there are; macOS cannot tell."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _verify(prefix: str) -> None:
    from data.verify import verify

    found = verify(prefix)
    print(f"{prefix} is intact: {found.documents:,} documents, {found.tokens:,} tokens, {found.bytes:,} bytes")


@contextlib.contextmanager
def _terminated_like_interrupted() -> Iterator[None]:
    """A batch system's SIGTERM unwinds like Ctrl-C does, so that workers go away."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def _one_line(error: Exception, output: str) -> str:
    """Our own errors say all there is; the system's, such as a full disk, do not say which file."""
    if isinstance(error, OSError) and error.strerror:
        name = error.filename or output
        return f"'{name}': {error.strerror}. No corpus was written; the same command goes on where it stopped"
    return " ".join(str(error).split())


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    config = parse(
        PrepareConfig, sys.argv[1:] if arguments is None else arguments, __doc__ or "", "python -m data.prepare"
    )
    from data.mpi_crew import abort_ranks

    crew: Crew | None = None
    try:
        with _terminated_like_interrupted():
            _check(config)
            crew = _crew(config.output.workers)
            run(config, crew)
    except (ValueError, OSError) as error:
        if crew.is_first if crew else is_first_rank():
            print(f"error: {_one_line(error, config.output.output)}", file=sys.stderr)
        return _BAD_INPUT
    except KeyboardInterrupt:
        if is_first_rank():
            print("interrupted: no corpus was written; the same command goes on where it stopped", file=sys.stderr)
        abort_ranks(_INTERRUPTED)
        return _INTERRUPTED
    except SystemExit:
        raise
    except BaseException:
        traceback.print_exc()
        abort_ranks(1)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
