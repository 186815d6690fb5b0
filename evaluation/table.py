"""What students keep of their teacher on GLUE, IMDb and SQuAD: the table of the DistilBERT paper, with retention.

    python -m evaluation.table --teacher runs/finetune/teacher --student runs/finetune/student
    python -m evaluation.table --teacher TEACHER --student distilled=runs/a/student --data DATA --finetune="--seeds 3"

A folder is one of finetune.py's results, or a model's, whose tasks are fine-tuned first where they have not been.
"""

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from command_line import parse
from evaluation.table_config import TableConfig


def main(config: TableConfig, command: str) -> int:
    """Exit code 2 and one line for input that does not fit."""
    # What reads the tasks' data comes with these, and --help has to answer at once.
    from evaluation.published import published
    from evaluation.results import write_json
    from evaluation.sections import append_section
    from evaluation.table_figures import table_of
    from evaluation.table_report import Report
    from evaluation.table_results import gather

    try:
        gathered = gather(config)
        table = table_of(gathered.results, config.tasks, gathered.no_data)
        counted = table.macro.tasks if table.macro else ()
        report = Report(
            table=table,
            sides=gathered.sides,
            remarks=gathered.remarks,
            published=published(config.tasks, counted) if config.paper else None,
        )
        section = report.markdown(command)
        print(section, end="")
        if config.append:
            append_section(Path(config.append), section)
        if config.json:
            write_json(report.content(command), Path(config.json))
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def check_given_once(arguments: Sequence[str]) -> None:
    """The parser keeps the last of two --student alone. Errors: ValueError."""
    if sum(argument.partition("=")[0] == "--student" for argument in arguments) > 1:
        raise ValueError("--student is given twice, and only the last would count. Give all after one: --student A B")


def command_line(arguments: Sequence[str]) -> int:
    """Flags -> exit code."""
    try:
        check_given_once(arguments)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    config = parse(TableConfig, arguments, __doc__ or "")
    return main(config, f"python -m evaluation.table {shlex.join(arguments)}")


if __name__ == "__main__":
    sys.exit(command_line(sys.argv[1:]))
