"""What runs have come to, or are coming to: one HTML page to mail and print, and the same as Markdown.

    python -m evaluation.report runs/distilled runs/random
    python -m evaluation.report runs/wiki --results teacher=results/teacher wiki=results/wiki --speed speed.json

Runs may be going: what they have written so far is reported, with a forecast of the end. Whatever is not there is left out,
and the report says so. Exit codes: 0 done, 2 bad input.
"""

import sys

from command_line import parse
from evaluation.report.config import ReportConfig


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    config = parse(
        ReportConfig, sys.argv[1:] if arguments is None else arguments, __doc__ or "", "python -m evaluation.report"
    )
    from evaluation.report.writing import write_report  # torch comes with it, and --help has to answer at once

    try:
        for path in write_report(config):
            print(f"wrote {path}")
    except (ValueError, OSError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
