"""README.md of an export: the model card, of what is on record about the model. What is not on record is said not to be."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from evaluation.report.runs import Run
from evaluation.results import TaskResult
from evaluation.tasks import TASKS
from exporting.plain import PRUNED_HEADS
from exporting.report import Report
from exporting.source import Head, Source

PIPELINES = {
    Head.MASKED_LM: "fill-mask",
    Head.CLASSIFICATION: "text-classification",
    Head.REGRESSION: "text-classification",
    Head.SPAN: "question-answering",
}
HUB_METRICS = {"matthews": "matthews_correlation", "pearson": "pearsonr", "spearman": "spearmanr"}
"""Ours -> the hub's, where they differ."""
CODE = {
    Head.MASKED_LM: 'pipe(f"The lighthouse is painted {pipe.tokenizer.mask_token}.")',
    Head.CLASSIFICATION: 'pipe("A text.")',
    Head.REGRESSION: 'pipe("A text.")',
}
PAIR_CODE = 'pipe({"text": "The first text.", "text_pair": "The second."})'
SPAN_CODE = (  # transformers has no pipeline for it since 5
    "from transformers import AutoModelForQuestionAnswering, AutoTokenizer",
    "",
    "tokenizer, model = AutoTokenizer.from_pretrained(FOLDER), AutoModelForQuestionAnswering.from_pretrained(FOLDER)",
    'inputs = tokenizer("Who keeps the lamp?", "A keeper lives below the lamp.", return_tensors="pt")',
    "outputs = model(**inputs)",
    "start, end = outputs.start_logits.argmax(), outputs.end_logits.argmax()",
    'print(tokenizer.decode(inputs["input_ids"][0, start : end + 1]))',
)


def write_card(report: Report, folder: Path) -> None:
    """Errors: OSError."""
    name = _name(report.source)
    sections = (
        [f"---\n{_metadata(report, name).to_yaml()}\n---", "", f"# {name}", ""],
        _what_it_is(report),
        _use(report),
        [
            "## Sizes and figures",
            "",
            *report.variants_table(),
            "",
            "More on each, and how it was measured: EXPORT.md.",
            "",
        ],
        _scores(report.source.provenance.result),
        _making(report.source),
        _limits(report),
    )
    (folder / "README.md").write_text("\n".join(line for part in sections for line in part), encoding="utf-8")


def _name(source: Source) -> str:
    """Of the run, the student or the fine-tuning: the last part of its path that says something."""
    parts = [part for part in source.folder.resolve().parts if part not in ("model", "student")]
    return "-".join(parts[-2:]) if source.provenance.result is not None else parts[-1]


def _metadata(report: Report, name: str) -> ModelCardData:
    """Licence and languages are not on record: the publisher knows them."""
    source, result = report.source, report.source.provenance.result
    formats = sorted({row.variant.format for row in report.kept} - {"hf"})
    pooled = ["sentence-transformers"] if source.head is Head.MASKED_LM else []
    return ModelCardData(
        library_name="transformers",
        pipeline_tag=PIPELINES[source.head],
        tags=["distillery", *(["distillation"] if _is_distilled(source) else []), *formats, *pooled],
        model_name=name,
        eval_results=None if result is None else _eval_results(result, PIPELINES[source.head]),
        ignore_metadata_errors=False,
    )


def _eval_results(result: TaskResult, pipeline: str) -> list[EvalResult]:
    task, (repository, configuration) = TASKS[result.task], TASKS[result.task].hub
    return [
        EvalResult(
            task_type=pipeline,
            dataset_type=repository,
            dataset_name=task.title,
            dataset_config=configuration,
            dataset_split=split,
            metric_type=HUB_METRICS.get(metric, metric),
            metric_name=f"{metric}, {_seeds(result)}",
            metric_value=value,
        )
        for split, scores in result.median().items()
        for metric, value in scores.items()
        if not math.isnan(value)
    ]


def _is_distilled(source: Source) -> bool:
    run, result = source.provenance.run, source.provenance.result
    return (run is not None and run.is_distillation) or (result is not None and bool(result.teacher))


def _seeds(result: TaskResult) -> str:
    count = len(result.chosen_runs)
    return f"median of {count} seeds" if count > 1 else "one seed"


def _what_it_is(report: Report) -> list[str]:
    source, config = report.source, report.source.model.config
    result = source.provenance.result
    task = f", fine-tuned on {TASKS[result.task].title}" if result is not None else ""
    labels = f" Its classes are {', '.join(source.labels)}." if source.labels else ""
    numbers = f"{config.num_hidden_layers} layers, width {config.hidden_size}, {config.num_attention_heads} heads"
    pruned = getattr(config, PRUNED_HEADS, None) or {}
    gone = sum(map(len, pruned.values()))
    heads = f" {gone} attention heads are pruned: zeros here, left out of the other formats." if gone else ""
    return [
        f"A {type(source.model).__name__} of {source.sizes.parameters / 1e6:.1f} M parameters ({numbers}, "
        f"{config.vocab_size:,} tokens of vocabulary){task}. It reads up to {source.max_length} tokens.{labels}{heads}",
        "",
    ]


def _use(report: Report) -> list[str]:
    source = report.source
    lines = ["## Use", "", "With FOLDER, this folder:", "", "```python", *_code(source), "```", ""]
    if source.head is Head.MASKED_LM:
        lines += [
            "`SentenceTransformer(FOLDER)` averages its last hidden states; no record says it was trained for that.",
            "",
        ]
    files = [f"`{row.variant.file}` ({row.variant.name})" for row in report.kept[1:]]
    if files:
        lines += [f"For other runtimes: {', '.join(files)}.", ""]
    return [*lines, "`python check.py` says whether a runtime computes what was exported.", ""]


def _code(source: Source) -> list[str]:
    if source.head is Head.SPAN:
        return list(SPAN_CODE)
    is_pair = source.task is not None and len(source.task.text_columns) == 2
    return [
        "from transformers import pipeline",
        "",
        f'pipe = pipeline("{PIPELINES[source.head]}", model=FOLDER)',
        PAIR_CODE if is_pair else CODE[source.head],
    ]


def _scores(result: TaskResult | None) -> list[str]:
    if result is None:
        return []
    task = TASKS[result.task]
    lines = ["## Scores", ""]
    for split, scores in result.median().items():
        values = ", ".join(f"{metric} {100 * value:.2f}" for metric, value in scores.items())
        lines.append(f"- {task.title}, {split}: {values} ({_seeds(result)})")
    lines += [
        "",
        "The model here is the best of all runs on this very split, and its settings were chosen on it: on other text "
        "expect less." + (" Trained or evaluated on a part of the examples only." if result.is_subset else ""),
        "",
    ]
    return lines


def _making(source: Source) -> list[str]:
    run, result = source.provenance.run, source.provenance.result
    lines = ["## How it was made", ""]
    if run is not None:
        lines += [*_distilling(run), ""]
    if result is not None:
        lines += [*_fine_tuning(result), ""]
    if run is None:
        lines += ["No record of its pre-training or distillation was beside it.", ""]
    return lines


def _distilling(run: Run) -> list[str]:
    flags, ds = run.flags, run.config.get("ds_config", {})
    if run.is_distillation:
        weights = ", ".join(f"{flags.get(f'weight_{part}')} x {part}" for part in ("distillation", "mlm", "cosine"))
        lines = [
            f"- Distilled from {_public(flags['teacher'])}: {weights}, temperature {flags.get('temperature')}; start: "
            + (
                "random."
                if run.is_random_start
                else f"layers of the teacher ({flags.get('student_layers') or 'evenly spread'})."
            ),
        ]
    else:
        lines = ["- Pre-trained by masked language modelling, without a teacher."]
    data = flags.get("data") or []
    names = ", ".join(_public(each) for each in ([data] if isinstance(data, str) else data))
    starts = len({record.get("attempt") for record in run.attempts})
    lines += [
        f"- Data: {names}, sequences of up to {flags.get('max_length')} tokens.",
        f"- {run.update:,} updates of {ds.get('train_batch_size', 'an unknown number of')} sequences, "
        f"{run.tokens / 1e6:,.1f} M tokens{_optimizer(ds)}.",
        f"- The run: {run.state}; {starts} starts, {len(run.incidents)} incidents.",
    ]
    if run.evaluations:
        last = run.evaluations[-1]
        own = ", ".join(f"{name} {value:.4f}" for name, value in last.figures.items() if not math.isnan(value))
        lines.append(f"- Held out ({_public(flags['eval_data'] or 'not named')}), update {last.update:,}: {own}.")
        teacher = ", ".join(f"{name} {value:.4f}" for name, value in run.teacher.items() if not math.isnan(value))
        lines += [f"- Its teacher there: {teacher}."] if teacher else []
    return lines


def _public(name: str) -> str:
    """Cards are published: of a path that says where somebody's files lie, its last two parts."""
    before, half, place = name.rpartition("half of ")
    path = Path(place)
    if not path.is_absolute() and path.parts[:1] not in {("..",), ("~",)}:
        return name
    return before + half + "/".join([part for part in path.parts if part not in {path.anchor, "..", "~"}][-2:])


def _optimizer(ds: Mapping[str, Any]) -> str:
    optimizer = ds.get("optimizer", {})
    rate = optimizer.get("params", {}).get("lr")
    return f", {optimizer.get('type')}, learning rate {rate}" if rate is not None else ""


def _fine_tuning(result: TaskResult) -> list[str]:
    task, cell = TASKS[result.task], result.chosen
    lines = [
        f"- Fine-tuned from {_public(result.model)} on {task.title}: batch {cell.batch_size}, "
        f"learning rate {cell.learning_rate:g}, {cell.epochs:g} epochs; {len(result.by_cell)} settings tried, "
        f"{_seeds(result)}."
    ]
    if result.teacher:
        lines.append(f"- A second distillation, from {_public(result.teacher)}.")
    for split, used in result.data.items():
        part = f" of {used.of:,}" if used.examples < used.of else ""
        lines.append(f"- {split}: {used.examples:,}{part} examples from {', '.join(map(_public, used.files))}.")
    return lines


def _limits(report: Report) -> list[str]:
    source = report.source
    lines = [
        "## Limits",
        "",
        f"- Longer texts than {source.max_length} tokens are cut, or have to be read in parts.",
        "- Licence and languages are not on record: whoever publishes it has to say.",
        "- Nothing was measured of bias, of harmful output, or on text of another kind than that named here.",
    ]
    run = source.provenance.run
    is_short = run is not None and run.flags.get("max_length", source.max_length) < source.max_length
    if run is not None and is_short and source.provenance.result is None:
        lines.append(
            f"- It was distilled on texts of up to {run.flags['max_length']} tokens: longer ones were not seen."
        )
    if not report.measured_on:
        lines.append(
            "- The accuracy of the variants was not measured when they were exported, only golden inputs were."
        )
    lossy = [row for row in report.kept if row.variant.precision != "fp32"]
    if lossy:
        lines.append("- Variants in fewer bits say something else now and then: see the table's golden answers.")
    lines += [f"- {row.variant.file} was not kept: {row.refused}." for row in report.refused]
    return [*lines, ""]
