"""What a smaller model gains: size, memory, latency and throughput of several models, measured in turns in one process.

    python -m evaluation.speed --models teacher=runs/teacher/student student=runs/a/student --data STS-B/dev.tsv
    python -m evaluation.speed --models bert-base distilbert --data STS-B/dev.tsv --tokenizer bert-base-uncased-vocab.txt
    python -m evaluation.speed --models bert-base distilbert --precisions fp32 --threads 1

Models are loaded and run as the users of such folders would, by transformers' AutoModel classes, each with the head that its
config.json names. The first model is what the others are compared with. On a GPU the same is measured there as well
(evaluation/speed_timing.py).
"""

import shlex
import sys
from pathlib import Path

from command_line import parse
from evaluation.sections import append_section
from evaluation.speed_config import SpeedConfig


def main(config: SpeedConfig, command: str) -> int:
    """Exit code 2 and one line for input that does not fit."""
    from evaluation.speed_report import run  # torch comes with it, and --help has to answer at once

    try:
        report = run(config)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    section = report.markdown(command)
    print(section, end="")
    if config.append:
        append_section(Path(config.append), section)
    if config.json:
        Path(config.json).write_text(report.as_json(command), encoding="utf-8")
    return 0


if __name__ == "__main__":
    ARGUMENTS = sys.argv[1:]
    sys.exit(main(parse(SpeedConfig, ARGUMENTS, __doc__ or ""), f"python -m evaluation.speed {shlex.join(ARGUMENTS)}"))
