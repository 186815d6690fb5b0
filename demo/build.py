"""A static web page in which a student answers questions about any text, in the browser, with its teacher beside it.

    python -m demo.build --student exports/student --teacher exports/teacher --output site
    python -m demo.serve --site site

The folders are export.py's, of models fine-tuned on SQuAD. The site is files alone: put them on any web server. Node and npm
are needed here, not there. Exit codes: 0 built, 2 bad input or no Node, 4 nothing can be written.
"""

import gzip
import sys
from pathlib import Path
from typing import Any

from command_line import parse
from demo.config import BuildConfig
from demo.models import Model, check_model
from demo.node import bundle, examine
from demo.site import SITE, write_site
from folders import check_output


def main(config: BuildConfig) -> int:
    try:
        build(config)
    except (ValueError, FileNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"error: {error}", file=sys.stderr)
        return 4
    return 0


def build(config: BuildConfig) -> None:
    """Errors: ValueError, FileNotFoundError, OSError."""
    output = Path(config.output)
    check_output(output, SITE, [Path(folder) for folder in (config.student, config.teacher) if folder])
    models = {"student": Model(title="Student", folder=Path(config.student), precision=config.precision)}
    if config.teacher:
        models["teacher"] = Model(title="Teacher", folder=Path(config.teacher), precision=config.teacher_precision)
    for which, model in models.items():
        check_model(model, f"--{which}")
    dist = bundle()
    for which, model in models.items():
        examine(model, f"--{which}")
    site = write_site(dist, models, output)
    for line in _sizes(output, site):
        print(line)
    print(f"Look at it: python -m demo.serve --site {output}")


def _sizes(output: Path, site: dict[str, Any]) -> list[str]:
    page = [file for file in site["files"] if not file["path"].startswith("models/")]
    always = [file for file in page if not file["optional"]]
    packed = sum(len(gzip.compress((output / file["path"]).read_bytes(), 6)) for file in always)
    lines = [
        f"{output}: the page without models {_megabytes(always)} MB ({packed / 1e6:.1f} MB on servers that compress); "
        f"WebGPU's runtime, which only those fetch who choose it, {_megabytes(page) - _megabytes(always):.1f} MB"
    ]
    for model in site["models"].values():
        if model:
            lines.append(f"{model['title']}, {model['precision']}: {model['onnx']['bytes'] / 1e6:.1f} MB")
    return lines


def _megabytes(files: list[dict[str, Any]]) -> float:
    return round(sum(file["bytes"] for file in files) / 1e6, 1)


if __name__ == "__main__":
    sys.exit(main(parse(BuildConfig, sys.argv[1:], __doc__ or "", "python -m demo.build")))
