"""`python -m docs.generator`: write docs/reference/ anew."""

import sys
from collections.abc import Callable

from docs.generator import command_pages, ds_config_page, run_folder_page, run_pages
from docs.generator.commands import COMMANDS, ROOT

FOLDER = ROOT / "docs/reference"


def pages() -> dict[str, str]:
    """File name in docs/reference -> its text."""
    made: dict[str, Callable[[], str]] = {
        "README.md": command_pages.index,
        "ds-config.md": ds_config_page.ds_config,
        "exit-codes.md": run_pages.exit_codes,
        "metrics.md": run_pages.metrics,
        "run-folder.md": run_folder_page.run_folder,
    }
    return {f"{command.page}.md": command_pages.page(command) for command in COMMANDS} | {
        name: make() for name, make in made.items()
    }


def main() -> int:
    """Pages that nothing is written to any more are removed."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    written = pages()
    for old in FOLDER.glob("*.md"):
        if old.name not in written:
            old.unlink()
    for name, text in written.items():
        (FOLDER / name).write_text(text, encoding="utf-8")
    print(f"wrote {len(written)} pages to {FOLDER.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
