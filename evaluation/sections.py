"""What the commands of this package share around their tables: names of models, Markdown, hardware. Nothing heavy."""

import os
import platform
from collections.abc import Sequence
from pathlib import Path


def named(model: str) -> tuple[str, str]:
    """NAME=FOLDER, or FOLDER alone under its own name; a folder may have = in its path."""
    name, separator, folder = model.partition("=")
    if Path(model).is_dir() or not separator:
        return Path(model).name, model
    return name, folder


def hardware() -> str:
    """Accelerator where there is one, processor and cores."""
    import torch  # takes a second, and only those who write a section need it

    info = Path("/proc/cpuinfo")  # platform.processor() is empty on most Linux systems
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    cpu = f"{names[0] if names else platform.processor()}, {os.cpu_count()} cores"
    return f"{torch.cuda.get_device_name()}; {cpu}" if torch.cuda.is_available() else cpu


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a Markdown table."""
    return [f"| {' | '.join(cells)} |" for cells in (header, ["---"] * len(header), *rows)]


def append_section(path: Path, section: str) -> None:
    """To a Markdown file, which need not exist, with an empty line between. Errors: OSError."""
    gap = "\n" if path.exists() and path.stat().st_size else ""
    with path.open("a", encoding="utf-8") as file:
        file.write(gap + section)
