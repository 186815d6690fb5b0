"""Does this export compute here what it computed when it was made? Every variant runs the inputs of golden.json.

    python check.py            # in the export's folder
    python check.py FOLDER

Needs numpy, and for each format its own runtime: transformers and torch, onnxruntime, executorch, ai-edge-litert.
A variant whose runtime is not installed is named and not tried. Exit codes: 0 all that was tried is right, 1 one computes
something else or cannot be loaded, 2 this is no export or nothing could be tried.
"""

import contextlib
import hashlib
import importlib
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

Outputs = Sequence[np.ndarray]
Run = Callable[[dict[str, np.ndarray]], Outputs]
COLUMNS = ("input_ids", "attention_mask", "token_type_ids")
LIKELIEST, LONGEST_ANSWER = 20, 30
SAME_NUMBER = 0.1
PACKAGES = {
    "hf": ("torch", "transformers"),
    "onnx": ("onnxruntime",),
    "executorch": ("torch", "executorch"),
    "litert": ("ai_edge_litert",),
}


def main(arguments: Sequence[str]) -> int:
    folder = Path(arguments[0]) if arguments else Path(__file__).parent
    try:
        golden = json.loads((folder / "golden.json").read_text(encoding="utf-8"))
        variants = json.loads((folder / "export.json").read_text(encoding="utf-8"))["variants"]
    except (OSError, ValueError, KeyError) as error:
        print(f"error: {folder} is no export: {error!r}", file=sys.stderr)
        return 2
    states = [check(folder, golden, variant) for variant in variants]
    if "tried" not in {state.split()[0] for state in states}:
        print("error: nothing could be tried. Install one of the packages named above", file=sys.stderr)
        return 2
    return int("tried wrong" in states)


def check(folder: Path, golden: dict[str, Any], variant: dict[str, Any]) -> str:
    """Prints a line; "tried right", "tried wrong" or "missing"."""
    name = f"{variant['file']} ({variant['name']})"
    missing = [package for package in PACKAGES[variant["format"]] if not is_installed(package)]
    if missing:
        print(f"{name}: not tried, {' and '.join(missing)} is not installed: pip install {' '.join(missing)}")
        return "missing"
    try:
        run = LOADERS[variant["format"]](folder / variant["file"], golden)
        outputs = [run(columns_of(given)) for given in golden["inputs"]]
    except Exception as error:  # whatever a runtime raises about a file
        reason = str(error).strip().splitlines() or [type(error).__name__]
        print(f"{name}: FAILED, it cannot be run: {reason[0]}")
        return "tried wrong"
    difference, same = compare(golden, outputs)
    recorded = golden["variants"][variant["file"]]
    allowed = max(2 * recorded["max_difference"], golden["fp32_tolerance"])
    is_right = difference <= allowed and same >= recorded["same_answers"] - 1
    found = f"largest difference {difference:.2g} ({allowed:.2g} allowed), {same} of {len(outputs)} answers the same"
    note = (
        "" if sha256(folder / variant["file"]) == variant["sha256"] else "; the file is not the one that was exported"
    )
    print(f"{name}: {'OK' if is_right else 'computes something else'}, {found}{note}")
    return "tried right" if is_right else "tried wrong"


def is_installed(package: str) -> bool:
    try:
        importlib.import_module(package)
    except ImportError:
        return False
    return True


def columns_of(given: dict[str, Any]) -> dict[str, np.ndarray]:
    return {name: np.array([given[name]], dtype=np.int64) for name in COLUMNS if name in given}


def load_hf(file: Path, golden: dict[str, Any]) -> Run:
    with quiet():
        import torch
        import transformers
        from transformers import modeling_utils  # noqa: F401  # brings what prints

    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    kinds = {
        "mlm": transformers.AutoModelForMaskedLM,
        "classification": transformers.AutoModelForSequenceClassification,
        "regression": transformers.AutoModelForSequenceClassification,
        "span": transformers.AutoModelForQuestionAnswering,
    }
    model = kinds[golden["kind"]].from_pretrained(str(file.parent), dtype=torch.float32, local_files_only=True).eval()

    def run(columns: dict[str, np.ndarray]) -> Outputs:
        with torch.inference_mode():
            output = model(**{name: torch.from_numpy(value) for name, value in columns.items()})
        return [output[name].numpy() for name in output_names(golden)]

    return run


def load_onnx(file: Path, golden: dict[str, Any]) -> Run:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    wanted = [one.name for one in session.get_inputs()]

    def run(columns: dict[str, np.ndarray]) -> Outputs:
        return session.run(output_names(golden), {name: columns[name] for name in wanted})

    return run


def load_executorch(file: Path, golden: dict[str, Any]) -> Run:
    import torch

    with quiet():
        from executorch.runtime import Runtime

        program = Runtime.get().load_program(file)
        method = program.load_method("forward")

    def run(columns: dict[str, np.ndarray]) -> Outputs:
        assert program is not None  # it has to live as long as its method
        return [value.numpy().copy() for value in method.execute([torch.from_numpy(one) for one in columns.values()])]

    return run


def load_litert(file: Path, golden: dict[str, Any]) -> Run:
    from ai_edge_litert.interpreter import Interpreter

    with quiet():
        program = Interpreter(str(file))
        program.allocate_tensors()
    lengths = sorted(int(name.removeprefix("length_")) for name in program.get_signature_list())

    def run(columns: dict[str, np.ndarray]) -> Outputs:
        length = columns["input_ids"].shape[1]
        padded = next(each for each in lengths if each >= length)
        given = {
            name: np.pad(value.astype(np.int32), ((0, 0), (0, padded - length))) for name, value in columns.items()
        }
        found = program.get_signature_runner(f"length_{padded}")(**given)
        outputs = [found[name] for name in output_names(golden)]
        return [value[:, :length] if golden["kind"] in {"mlm", "span"} else value for value in outputs]

    return run


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """What ExecuTorch and its libraries print while they are loaded goes nowhere. Errors pass."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)  # C++ writes to the descriptor
    try:
        yield
    finally:
        sys.stderr.flush()
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


LOADERS: dict[str, Callable[[Path, dict[str, Any]], Run]] = {
    "hf": load_hf,
    "onnx": load_onnx,
    "executorch": load_executorch,
    "litert": load_litert,
}


def output_names(golden: dict[str, Any]) -> list[str]:
    return ["start_logits", "end_logits"] if golden["kind"] == "span" else ["logits"]


def compare(golden: dict[str, Any], outputs: Sequence[Outputs]) -> tuple[float, int]:
    """The largest difference from the golden outputs, infinite where one is not finite; how many answers are the same."""
    largest, same = 0.0, 0
    for given, found in zip(golden["inputs"], outputs, strict=True):
        said, rows = given["outputs"], [np.asarray(value[0], dtype=np.float64) for value in found]
        if golden["kind"] == "mlm":
            row = rows[0][said["position"]]
            pairs = [(said["logits"], row[said["token_ids"]])]
            same += int(row.argmax()) == said["token_ids"][0]
        elif golden["kind"] == "span":
            pairs = [(said["start_logits"], rows[0]), (said["end_logits"], rows[1])]
            same += best_span(rows[0], rows[1], *given["context"]) == given["span"]
        else:
            pairs = [(said["logits"], rows[0])]
            if golden["kind"] == "regression":
                same += bool(abs(rows[0][0] - given["answer"]) <= SAME_NUMBER)
            else:
                same += golden["labels"][int(rows[0].argmax())] == given["answer"]
        for expected, value in pairs:
            difference = float(np.abs(np.array(expected) - value).max())
            largest = max(largest, difference if np.isfinite(difference) else float("inf"))
    return largest, same


def best_span(starts: np.ndarray, ends: np.ndarray, first: int, behind: int) -> list[int] | None:
    """First and last token of the answer: the best sum of a likely start and a likely end within tokens [first, behind)."""
    best, found = -float("inf"), None
    for start in first + np.argsort(-starts[first:behind], kind="stable")[:LIKELIEST]:
        for end in first + np.argsort(-ends[first:behind], kind="stable")[:LIKELIEST]:
            if start <= end < start + LONGEST_ANSWER and starts[start] + ends[end] > best:
                best, found = starts[start] + ends[end], [int(start), int(end)]
    return found


def sha256(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as opened:
        while block := opened.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()


if __name__ == "__main__":
    os.environ["HF_HUB_OFFLINE"] = "1"  # everything is here
    sys.exit(main(sys.argv[1:]))
