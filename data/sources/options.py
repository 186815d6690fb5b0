"""Which field holds the text, and how datasets are read: the flags of every command that takes --input."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class SourceOptions:
    """How the files and datasets after --input are read."""

    text_field: str = "text"
    """Field of a JSON record, or column of a table or dataset, that holds the text."""

    streaming: bool = False
    """Read hf: datasets while they download, without a copy on this machine's disk."""

    def check(self) -> None:
        """Errors: ValueError naming the flag."""
        if not self.text_field:
            raise ValueError("--text_field is empty. Name the field or column that holds the text, such as text")
