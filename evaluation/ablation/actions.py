"""What the command does: list the cells, run them, tabulate what they gave."""

import sys
import time
from collections import Counter
from pathlib import Path

from evaluation.ablation.commands import Commands
from evaluation.ablation.config import AblationConfig
from evaluation.ablation.figures import collect
from evaluation.ablation.plan import Cell, Plan
from evaluation.ablation.products import State, Status, conflict, status
from evaluation.ablation.report import as_json, markdown
from evaluation.ablation.settings import Settings, look_at_files, understand
from evaluation.ablation.stages import SAVED, work_on
from evaluation.sections import append_section


def list_cells(plan: Plan, number: int | None) -> int:
    """A line each; the folder is what follows the last two spaces."""
    settings = understand(plan)
    chosen = plan.cells if number is None else (plan.numbered(number),)
    rows = []
    for cell in chosen:
        state = conflict(cell, settings) or str(status(cell, plan, settings))
        rows.append((str(cell.number), cell.name, f"seed {cell.seed}", state, str(cell.folder)))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    for row in rows:
        print("  ".join([*(text.ljust(width) for text, width in zip(row, widths, strict=False)), row[-1]]))
    return 0


def tabulate(plan: Plan, config: AblationConfig, command: str) -> int:
    """Errors: ValueError, OSError."""
    settings = understand(plan)
    refuse_conflicts(plan, settings)
    figures = collect(plan, settings)
    section = markdown(plan, settings, figures, command)
    print(section, end="")
    if config.append:
        append_section(Path(config.append), section)
    if config.json:
        Path(config.json).write_text(as_json(plan, settings, figures, command), encoding="utf-8")
    return 0


def run(plan: Plan, config: AblationConfig, command: str) -> int:
    """Everything that is not finished, or one cell. Errors: ValueError, OSError before the first is started."""
    chosen = plan.cells if config.cell is None else (plan.numbered(config.cell),)
    commands = Commands()
    settings = look_at_files(plan, understand(plan))
    refuse_conflicts(plan, settings)
    for warning in settings.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    outcomes = run_cells(chosen, plan, settings, commands)
    if config.cell is None:
        print()
        tabulate(plan, config, command)
    return summary(outcomes, commands)


def run_cells(chosen: tuple[Cell, ...], plan: Plan, settings: Settings, commands: Commands) -> dict[Cell, Status]:
    """One after the other; a failed one does not stop the others."""
    outcomes = {cell: status(cell, plan, settings) for cell in chosen}
    left = [cell for cell, found in outcomes.items() if found.state is not State.FINISHED]
    print(f"{len(chosen)} students, {len(chosen) - len(left)} of them finished before", flush=True)
    seconds: list[float] = []
    for number, cell in enumerate(left, start=1):
        if commands.stop_reason:
            break
        started = time.monotonic()
        print(f"[{number}/{len(left)}] {cell.title}", flush=True)
        outcomes[cell] = work_on(cell, plan, settings, commands)
        seconds.append(time.monotonic() - started)
        rest = (len(left) - number) * sum(seconds) / len(seconds)
        print(f"  {outcomes[cell]} after {clock(seconds[-1])}; about {clock(rest)} to go", flush=True)
    return outcomes


def summary(outcomes: dict[Cell, Status], commands: Commands) -> int:
    """The exit code, and why it is not 0."""
    states = Counter(found.state for found in outcomes.values())
    for cell, found in outcomes.items():
        if found.state in (State.FAILED, State.RUNNING):
            print(f"{cell.title}: {found}", file=sys.stderr)
    if commands.stop_reason:
        print(f"stopped ({commands.stop_reason}); the same command goes on where it was", file=sys.stderr)
    if states[State.FAILED]:
        return 1
    if commands.stop_reason:
        return SAVED
    return 2 if states[State.RUNNING] else 0


def refuse_conflicts(plan: Plan, settings: Settings) -> None:
    """Errors: ValueError naming every folder that cannot be used."""
    found = [reason for cell in plan.cells if (reason := conflict(cell, settings))]
    if found:
        raise ValueError("\n".join(found))


def clock(seconds: float) -> str:
    """1:02:03."""
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}"
