"""Give a student to its users: a Hugging Face folder, ONNX and ExecuTorch programs, each proved to compute the same.

    python export.py --input runs/wiki --output exports/wiki
    python export.py --input runs/finetune/student/sst2 --data glue --teacher bert-base-uncased --output exports/sst2
    python export.py --input runs/finetune/student/squad --data squad --formats onnx --variants int8 --output exports/squad

The output holds the model with its card, golden inputs with their outputs, and check.py, which needs nothing of distillery
and says whether a runtime computes what was exported. Exit codes: 0 finished, 2 bad input, 3 a variant lost more than
--max_drop and was not kept (the others are there), 4 nothing can be written.
"""

import sys

from command_line import parse
from exporting.config import ExportConfig


def main(config: ExportConfig) -> int:
    from exporting.command import export  # torch comes with it, and --help has to answer at once

    try:
        return export(config)
    except (ValueError, FileNotFoundError) as error:
        return _fail(error, 2)
    except OSError as error:
        return _fail(error, 4)


def _fail(error: Exception, code: int) -> int:
    print(f"error: {error}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main(parse(ExportConfig, sys.argv[1:], __doc__ or "")))
