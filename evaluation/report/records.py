"""How it was done: configuration and environment, starts and ends, incidents, and the files that say more."""

import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from evaluation.report.document import Block, Code, Fold, Link, Note, Prose, Section, Table
from evaluation.report.runs import Run

_FILES = ("config.json", "metrics.jsonl", "log.txt", "attempts.jsonl", "rewinds.json", "micro_batch.json")
_FOLDERS = ("student", "tensorboard", "checkpoints", "incidents", "profile", "stacks")
_MOST_INCIDENTS = 20
_INTRODUCTION = ("teacher:", "student:", "student's folder:", "update:", "data:", "  ", "attention:", "compiled:")


def configuration_section(runs: Sequence[Run]) -> Section:
    """What differs between the runs, what they share, and what was chosen for them."""
    shared, differing = _compare([_settings(run) for run in runs])
    blocks: list[Block] = []
    if len(runs) > 1:
        rows = [[name, *values] for name, values in differing.items()]
        header = ["flag", *(run.name for run in runs)]
        blocks.append(
            Table(header, rows, caption="What differs", is_text=True) if rows else Prose("All flags are alike.")
        )
    title = "What they share" if len(runs) > 1 else "Flags"
    blocks.append(
        Fold(title, [Table(("flag", "value"), [[name, value] for name, value in shared.items()], is_text=True)])
    )
    for run in runs:
        chosen = _introduction(run.folder / "log.txt")
        if chosen:
            blocks.append(Fold(f"{run.name}: what was chosen and why, from log.txt", [Code("\n".join(chosen))]))
    for run, like in _distinct(runs):
        names = " and ".join(like)
        blocks.append(
            Fold(f"DeepSpeed's configuration of {names}", [Code(json.dumps(run.config.get("ds_config"), indent=2))])
        )
    return Section("Configuration and environment", blocks, begins_page=True)


def _settings(run: Run) -> dict[str, str]:
    environment = {"ranks": run.config.get("num_ranks")} | dict(run.config.get("versions", {}))
    environment["host"] = next((record["host"] for record in reversed(run.attempts) if "host" in record), None)
    return {name: _value(value) for name, value in {**environment, **run.flags}.items()}


def _compare(settings: Sequence[Mapping[str, str]]) -> tuple[dict[str, str], dict[str, list[str]]]:
    names = dict.fromkeys(name for each in settings for name in each)
    shared, differing = {}, {}
    for name in names:
        values = [each.get(name, "") for each in settings]
        if len(set(values)) == 1:
            shared[name] = values[0]
        else:
            differing[name] = values
    return shared, differing


def _distinct(runs: Sequence[Run]) -> Iterator[tuple[Run, list[str]]]:
    """Each DeepSpeed configuration once, with the names of the runs that have it."""
    by_content: dict[str, tuple[Run, list[str]]] = {}
    for run in runs:
        by_content.setdefault(json.dumps(run.config.get("ds_config")), (run, []))[1].append(run.name)
    yield from by_content.values()


def _introduction(path: Path) -> list[str]:
    """The lines that a run prints before its first update."""
    if not path.is_file():
        return []
    chosen = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        if line.startswith("run folder:"):
            break
        if line.startswith(_INTRODUCTION):
            chosen.append(line)
    return chosen


def _value(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(map(str, value))
    return "" if value in (None, "") else str(value)


def incidents_section(runs: Sequence[Run]) -> Section:
    """Starts and ends of each run, updates that were skipped."""
    blocks: list[Block] = []
    for run in runs:
        starts = [*_starts(run)]
        if starts:
            header = ("start", "when", "ranks", "from update", "end", "at update", "after")
            blocks.append(Table(header, starts, caption=run.name))
        else:
            blocks.append(Note(f"{run.name} has no attempts.jsonl."))
        if run.incidents:
            blocks.append(_incident_table(run))
        else:
            blocks.append(Prose(f"{run.name}: no incident on record."))
    return Section("Starts, ends and incidents", blocks)


def _starts(run: Run) -> Iterator[list[str]]:
    ends = {record["attempt"]: record for record in run.attempts if "end" in record and "attempt" in record}
    for record in run.attempts:
        if "start_update" not in record:
            continue
        end = ends.get(record.get("attempt"), {})
        code = end.get("exit_code")
        began, ended = record.get("time"), end.get("time")
        yield [
            str(record.get("attempt", "")),
            time.strftime("%Y-%m-%d %H:%M", time.localtime(began)) if began else "",
            str(record.get("num_ranks", "")),
            f"{record['start_update']:,}",
            f"{end['end']}{'' if code is None else f' ({code})'}" if end else run.state,
            f"{end['update']:,}" if end else "",
            _duration(ended - began) if began and ended else "",
        ]


def _duration(seconds: float) -> str:
    hours, minutes = divmod(int(seconds // 60), 60)
    return f"{hours}:{minutes:02} h" if hours else f"{minutes}:{int(seconds % 60):02} min"


def _incident_table(run: Run) -> Table:
    rows = [
        [
            f"{incident.get('update', ''):,}" if isinstance(incident.get("update"), int) else "",
            str(incident.get("reason", "")),
            _ranks(incident),
        ]
        for incident in run.incidents[:_MOST_INCIDENTS]
    ]
    more = len(run.incidents) - len(rows)
    caption = f"{run.name}: updates that were skipped{f'; {more} more in incidents/' if more else ''}"
    return Table(("update", "reason", "where"), rows, caption=caption, is_text=True)


def _ranks(incident: Mapping[str, Any]) -> str:
    found = incident.get("micro_batches") or []
    return ", ".join(f"rank {entry.get('rank')} micro-batch {entry.get('micro_batch', 0) + 1}" for entry in found[:3])


def files_section(runs: Sequence[Run], extra: Sequence[Path], output: Path) -> Section:
    """Everything that is quoted here, relative to the report."""
    rows: list[list[str | Link]] = []
    for run in runs:
        rows += [
            [f"{run.name}: {name}", _link(run.folder / name, output)]
            for name in _FILES
            if (run.folder / name).is_file()
        ]
        rows += [
            [f"{run.name}: {name}/", _link(run.folder / name, output)]
            for name in _FOLDERS
            if (run.folder / name).is_dir()
        ]
    rows += [[path.name, _link(path, output)] for path in extra]
    return Section("Files", [Table(("what", "where"), rows, is_text=True)])


def _link(path: Path, output: Path) -> Link:
    target = os.path.relpath(path.resolve(), output.resolve())
    return Link(target, target)
