"""Node and npm, which make the page out of src/ and two libraries; needed to build it, not to serve or read it."""

import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from demo.models import Model

HERE = Path(__file__).resolve().parent
DIST = HERE / "dist"
OLDEST = 18


def bundle() -> Path:
    """The page without models, made anew. Errors: FileNotFoundError without Node, ValueError when npm fails."""
    for command in ("node", "npm"):
        if shutil.which(command) is None:
            raise FileNotFoundError(
                f"no {command} here: the page is built with Node {OLDEST} or newer and its npm (https://nodejs.org, or "
                "apt-get install nodejs npm). A site that is built needs neither"
            )
    version = _run(["node", "--version"])
    if int(re.match(r"v?(\d+)", version).group(1)) < OLDEST:  # type: ignore[union-attr]
        raise ValueError(f"node {version.strip()} is too old to build the page: {OLDEST} or newer is needed")
    installed, locked = HERE / "node_modules/.package-lock.json", HERE / "package-lock.json"
    if not installed.is_file() or installed.stat().st_mtime < locked.stat().st_mtime:
        _run(["npm", "ci", "--ignore-scripts"])
    _run(["npm", "run", "build"])
    return DIST


def examine(model: Model, flag: str) -> None:
    """Whether the page's tokenizer library cuts the recorded texts as Python does. Errors: ValueError."""
    answer = subprocess.run(["node", HERE / "examine.js", model.folder.resolve()], capture_output=True, text=True)
    if answer.returncode:
        raise ValueError(f"{flag} {model.folder}: the page cannot read its texts: {answer.stderr.strip()[-500:]}")


def _run(command: Sequence[str]) -> str:
    answer = subprocess.run(command, cwd=HERE, capture_output=True, text=True)
    if answer.returncode:
        last = (answer.stderr or answer.stdout).strip()[-1500:]
        raise ValueError(f"{' '.join(command)} in {HERE} failed. Is there a network for the first build?\n{last}")
    return answer.stdout
