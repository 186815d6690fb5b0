"""From flags to the two files."""

import time
from collections.abc import Sequence
from pathlib import Path

from evaluation.compare import named
from evaluation.report.browser import disagreement_section
from evaluation.report.config import ReportConfig
from evaluation.report.document import Document
from evaluation.report.markdown import as_markdown
from evaluation.report.outlook import forecast_section
from evaluation.report.page import as_html
from evaluation.report.progress import held_out_section, loss_section
from evaluation.report.records import configuration_section, files_section, incidents_section
from evaluation.report.runs import Run, comparable, read_runs
from evaluation.report.summary import summary_section
from evaluation.report.worth import read_speed, read_tasks, retention_section, size_section, weigh_folders


def write_report(config: ReportConfig) -> list[Path]:
    """Returns what was written. Errors: ValueError or OSError for input that is not what it should be."""
    output = Path(config.output)
    runs = read_runs(_folders(config.runs, output))
    document = compose(config, runs, output)
    output.mkdir(parents=True, exist_ok=True)
    written = []
    for name, text in (("report.html", as_html(document)), ("report.md", as_markdown(document))):
        partial = output / f"{name}.partial"
        partial.write_text(text, encoding="utf-8")
        written.append(partial.replace(output / name))
    return written


def _folders(given: Sequence[str], output: Path) -> list[Path]:
    """Without the report's own folder, which runs/* names as well."""
    folders = []
    for folder in map(Path, given):
        if folder.resolve() == output.resolve():
            print(f"{folder} is the report's own folder, not a run: left out")
        else:
            folders.append(folder)
    if not folders:
        raise ValueError("no run: name at least one run folder, for example python -m evaluation.report runs/wiki")
    return folders


def compose(config: ReportConfig, runs: Sequence[Run], output: Path) -> Document:
    """All sections. Errors: ValueError or OSError for --results and --speed."""
    groups = comparable(runs)
    styles = {run.name: number for number, run in enumerate(run for group in groups for run in group.runs)}
    tasks = read_tasks(config.results)
    weights = read_speed(config.speed) if config.speed else weigh_folders(runs)
    disagreement = disagreement_section(
        runs, num_sentences=config.sentences, num_sequences=config.sequences, say=lambda line: print(line, flush=True)
    )
    extra = [Path(named(text)[1]) for text in config.results] + ([Path(config.speed)] if config.speed else [])
    sections = [
        summary_section(runs, groups),
        forecast_section(groups, styles),
        held_out_section(groups, styles),
        loss_section(groups, styles),
        retention_section(runs, tasks, styles),
        size_section(runs, tasks, weights, bool(config.speed), styles),
        disagreement,
        configuration_section(runs),
        incidents_section(runs),
        files_section(runs, extra, output),
    ]
    return Document(
        title=f"Report on {' and '.join(run.name for run in runs)}",
        subtitle=f"Written {time.strftime('%Y-%m-%d %H:%M')} by distillery, from {' '.join(config.runs)}.",
        sections=sections,
    )
