"""Everything that people keep text in -> documents, in units of work that many processes or MPI ranks can share.

`plan_inputs` turns the arguments of --input into items; an item's `parts` gives documents, and a `BadRecord` for each
record that holds none. Files of lines (txt, jsonl, csv, WikiExtractor's) plain or compressed, Parquet, Arrow, folders and
globs of them, and datasets of Hugging Face's hub or disk.
"""

from data.sources.item import Item
from data.sources.legacy import InputProgress, check_inputs, read_documents
from data.sources.options import SourceOptions
from data.sources.plan import plan_inputs
from data.sources.record import REASONS, BadRecord
from data.sources.stdin import spool_stdin

__all__ = [
    "REASONS",
    "BadRecord",
    "InputProgress",
    "Item",
    "SourceOptions",
    "check_inputs",
    "plan_inputs",
    "read_documents",
    "spool_stdin",
]
