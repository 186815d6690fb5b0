"""A page for each command, and the index of all pages."""

from docs.generator.commands import COMMANDS, ROOT, Command
from docs.generator.flags import Flag, groups, read
from docs.generator.markdown import NOTE, cell, code, table

COLUMNS = ("flag", "takes", "default", "")


def page(command: Command) -> str:
    """What the command's file says of itself, and a table of flags for each of its dataclasses."""
    source = read(ROOT / command.source)
    parts = [f"# {command.page}\n", _described(source.description)]
    for group in groups(source.config):
        declared = f"Declared in [{group.owner}](../../{group.owner})."
        flags = table(COLUMNS, map(_row, group.flags))
        parts.append(f"## {_title(group.about)}\n\n{declared}\n\n{flags}")
    return NOTE + "\n".join(parts)


def _title(about: str) -> str:
    """A dataclass's first sentence."""
    return " ".join(about.split("\n\n")[0].split()).split(". ")[0].rstrip(".")


def _described(text: str) -> str:
    """A docstring's prose and indented commands; prose is unwrapped, as its paragraphs are filled for a terminal."""
    blocks = []
    for block in text.split("\n\n"):
        is_code = block.startswith(("    ", "python "))
        blocks.append(_indented(block) if is_code else cell(block))
    return "\n\n".join(blocks) + "\n"


def _indented(block: str) -> str:
    return "\n".join(line if line.startswith("    ") else f"    {line}" for line in block.splitlines())


def _row(flag: Flag) -> tuple[str, ...]:
    default = "**must be given**" if flag.default is None else code(flag.default)
    return code(flag.name), flag.takes, default, cell(flag.help)


def index() -> str:
    """docs/reference/README.md."""
    rows = [(f"[{c.page}]({c.page}.md)", code(c.words), cell(_first_sentence(c))) for c in COMMANDS]
    return f"{NOTE}{_INDEX}\n{table(('page', 'command', ''), rows)}\n{_OTHERS}"


def _first_sentence(command: Command) -> str:
    return read(ROOT / command.source).description.splitlines()[0]


_INDEX = """# Reference

Every flag, key, code and field, from where it is declared. `COMMAND --help` says the same of flags in the terminal.
`--max_length` and `--max-length` are one flag. A switch takes no value: `--resume` turns it on, `--no_resume` off. Where the
default is empty, the text beside it says what happens without the flag.
"""

_OTHERS = """| page | what it lists |
| --- | --- |
| [ds-config](ds-config.md) | the DeepSpeed JSON: keys required, known, refused, warned about; the files that are shipped |
| [exit-codes](exit-codes.md) | how a run of train.py ends, and which ends `launcher/slurm.sbatch` starts again |
| [metrics](metrics.md) | fields of `metrics.jsonl` and their charts in TensorBoard |
| [run-folder](run-folder.md) | the files that a run leaves, and who writes them |

A corpus's files are described in [data/README.md](../../data/README.md#formats). `launcher/slurm.sbatch`,
`launcher/rehearse.sh` and `launcher/recipes/*.sh` take the flags of [train](train.md).
"""
