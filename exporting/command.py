"""export.py from its flags to its exit code: what is written, in which order, and what of it is kept."""

import math
import shutil
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import transformers

from evaluation.results import write_json
from evaluation.sections import hardware
from exporting import check, executorch_runtime, golden, litert_runtime, report
from exporting.card import write_card
from exporting.config import HF, ExportConfig
from exporting.golden import COUNT, FP32_TOLERANCE, compare, make_golden, run_golden
from exporting.hugging_face import check_equality, runner, write_hugging_face
from exporting.measure import measure
from exporting.plain import plain_model
from exporting.report import EXPORT, Report, Row
from exporting.source import Head, Source, load_source
from exporting.texts import calibration_texts, encode, golden_texts, spread
from exporting.variant import TEACHER, Exporter, Figures, MissingPackageError, Request, Variant, total_bytes
from folders import sha256, staged
from model.hub import read_config, resolve_folder

REFUSED = 3
PACKAGES = {
    "onnx": (("onnx", "onnxscript", "onnxruntime"), "pip install onnx onnxscript onnxruntime"),
    "executorch": (("executorch",), executorch_runtime.INSTALL),
    "litert": (("litert_torch",), litert_runtime.INSTALL),
}
"""Of each format, and what installs them."""
EQUALITY_INPUTS = 8


def export(config: ExportConfig) -> int:
    """The exit code. Errors: ValueError and FileNotFoundError for bad input, OSError where nothing can be written."""
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    exporters: dict[str, Exporter] = {name: _exporter(name) for name in config.formats if name != HF}
    source = load_source(config.input)
    _introduce(source, config)
    with staged(Path(config.output), EXPORT, [source.folder]) as folder:
        found = _export(config, source, exporters, folder)
    _conclude(found, Path(config.output))
    return REFUSED if found.refused else 0


def _exporter(name: str) -> Exporter:
    """Errors: MissingPackageError."""
    packages, install = PACKAGES[name]
    if missing := [package for package in packages if find_spec(package) is None]:
        raise MissingPackageError(f"--formats {name} needs {' and '.join(missing)}: {install}, or leave {name} out")
    if name == "onnx":
        from exporting.onnx_export import export_onnx

        return export_onnx
    if name == "executorch":
        from exporting.executorch_export import export_executorch

        return export_executorch
    from exporting.litert_export import export_litert

    return export_litert


def _introduce(source: Source, config: ExportConfig) -> None:
    what = source.head.value if source.task is None else source.task.title
    print(
        f"{config.input}: {type(source.model).__name__} ({what}), {source.sizes.parameters / 1e6:.1f} M parameters, inputs "
        f"of up to {source.max_length} tokens"
    )
    if config.data and source.head is not Head.MASKED_LM and source.task is None:
        raise ValueError(
            f"--data {config.data}: it is not known which task {config.input} was fine-tuned on. Give finetune.py's "
            "OUTPUT/TASK, which has a result.json, or leave --data out"
        )
    if config.teacher:
        read_config(resolve_folder(config.teacher))  # what is wrong with it shows before the work
    if not config.data:
        print("no --data: accuracy is not measured, and no variant can be refused for it", flush=True)


def _export(config: ExportConfig, source: Source, exporters: Mapping[str, Exporter], folder: Path) -> Report:
    texts, origin = golden_texts(source, config.data, COUNT)
    is_calibrated = "onnx" in exporters and {"int8", "int8_static"} & set(config.variants)
    calibration, calibrated_on = calibration_texts(source, config) if is_calibrated else (texts, "")
    plain = plain_model(source.model)
    reference = write_hugging_face(source, folder)
    equality = check_equality(source, plain, folder, [encode(source, text) for text in spread(texts, EQUALITY_INPUTS)])
    print(
        f"logits on {equality.inputs} inputs: the folder loaded again differs by {equality.folder:.1g}, the graph to export "
        f"by {equality.plain:.1g} ({FP32_TOLERANCE:g} is allowed)",
        flush=True,
    )
    expected = make_golden(source, texts, origin, runner(source.model))
    request = Request(
        plain=plain,
        folder=folder,
        precisions=config.variants,
        max_length=source.max_length,
        pad_id=source.tokenizer.pad_token_id,
        calibration=[encode(source, text) for text in calibration],
        calibration_source=calibrated_on,
        opset=config.opset,
    )
    variants = [reference]
    for name, exporter in exporters.items():
        print(f"writing {name}", flush=True)  # takes a minute
        variants += exporter(request)
    print("running every variant", flush=True)
    rows, teacher = _examine(config, source, variants, expected, folder)
    found = Report(
        source=source,
        rows=rows,
        equality=equality,
        golden_inputs=len(texts),
        golden_from=origin,
        calibrated_on=calibrated_on,
        measured_on=config.data,
        max_drop=config.max_drop,
        teacher=config.teacher,
        teacher_figures=teacher,
        hardware=hardware(),
        versions={name: version(name) for name in ("torch", "transformers")},
    )
    _write(found, expected, folder)
    return found


def _examine(
    config: ExportConfig, source: Source, variants: Sequence[Variant], expected: golden.Golden, folder: Path
) -> tuple[list[Row], Figures | None]:
    """Every variant as it is on the disk: its golden outputs and its figures. Those that are not kept are deleted."""
    recorded = {variant.name: compare(expected, run_golden(expected, variant.load(folder, 0))) for variant in variants}
    figures = measure(variants, source, config, folder)
    rows = []
    for variant in variants:
        one, own = recorded[variant.name], figures[variant.name]
        rows.append(
            Row(
                variant=variant,
                bytes=total_bytes(variant, folder),
                sha256=sha256(folder / variant.file),
                recorded=one,
                figures=own,
                refused="" if variant is variants[0] else refusal(variant, one, own, config.max_drop),
            )
        )
    needed = {name for row in rows if not row.refused for name in (row.variant.file, *row.variant.beside)}
    for row in rows:
        for name in (row.variant.file, *row.variant.beside):
            if name not in needed:
                (folder / name).unlink(missing_ok=True)
        if not row.refused:
            expected["variants"][row.variant.file] = {
                "max_difference": row.recorded.max_difference,
                "same_answers": row.recorded.same_answers,
                "runtime": row.variant.runtime,
            }
    return rows, figures.get(TEACHER)


def refusal(variant: Variant, recorded: golden.Recorded, figures: Figures, max_drop: float) -> str:
    """Why a variant is not kept; empty where it is."""
    if math.isinf(recorded.max_difference):
        return "its outputs on golden inputs are not finite"
    if variant.precision == "fp32" and recorded.max_difference > FP32_TOLERANCE:
        return f"it is fp32, but its logits differ by {recorded.max_difference:.2g}, {FP32_TOLERANCE:g} is allowed"
    if figures.metric and math.isnan(figures.score):
        return f"its {figures.metric} is undefined"
    if figures.drop > max_drop:
        return f"it loses {figures.drop:.2f} points of {figures.metric}, --max_drop {max_drop:g} is allowed"
    return ""


def _write(found: Report, expected: golden.Golden, folder: Path) -> None:
    write_json(expected, folder / golden.FILE)
    write_json(found.as_json(), folder / report.FILE)
    (folder / "EXPORT.md").write_text(found.as_markdown(), encoding="utf-8")
    write_card(found, folder)
    shutil.copyfile(check.__file__, folder / "check.py")


def _conclude(found: Report, output: Path) -> None:
    print("\n".join(found.variants_table()))
    for row in found.refused:
        print(f"not kept: {row.variant.file}: {row.refused}")
    print(f"written to {output}; python {output / 'check.py'} checks it anywhere", flush=True)
