"""export.py from its flags to its exit code."""

from exporting.config import ExportConfig


def export(config: ExportConfig) -> int:
    """The exit code. Errors: ValueError and FileNotFoundError for bad input, OSError where nothing can be written."""
    raise NotImplementedError
