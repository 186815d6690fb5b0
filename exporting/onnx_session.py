"""ONNX files in onnxruntime, on the CPU."""

from pathlib import Path

import onnxruntime

from exporting.variant import Batch, Outputs, Run

RUNTIME = f"onnxruntime {onnxruntime.__version__}"


def open_session(model: Path | bytes, threads: int) -> onnxruntime.InferenceSession:
    """With all of the session's own fusions; `threads` inside one operation, 0 for as many as it would use.

    Errors: ValueError for a file that it cannot open.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 3
    # Idle threads that spin between two inputs take cores from whatever prepares the next one.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    source = model if isinstance(model, bytes) else str(model)
    try:
        return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its errors have no common class below this one
        raise ValueError(
            f"{RUNTIME} cannot open {'the model' if isinstance(model, bytes) else model}: {error}"
        ) from None


def load_file(file: Path, threads: int) -> Run:
    """Errors: those of `open_session`."""
    session = open_session(file, threads)
    outputs = [output.name for output in session.get_outputs()]

    def run(batch: Batch) -> Outputs:
        return tuple(session.run(outputs, dict(batch)))

    return run
