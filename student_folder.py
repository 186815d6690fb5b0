"""The student of a finished run as a Hugging Face folder."""

import shutil

import torch

from model.hub import save_model
from run_state import Run
from training.distributed import from_first
from training.engine import master_weights
from training.files import fsync_files, rename
from training.lifecycle import SaveFailedError


def save_student(run: Run) -> None:
    """Together: the student in fp32 master weights, with its tokenizer, in the run folder's student/.

    Errors: SaveFailedError.
    """
    weights = master_weights(run.engine)
    problem = from_first(run.ranks, _write(run, weights) if run.ranks.is_first else "")
    if problem:
        raise SaveFailedError(f"the student could not be written: {problem}. Make room and start again with --resume")
    if run.best:
        run.say(f"best held-out loss: {run.best['eval_mlm_loss']:.4f} at update {run.best['update']:.0f}")


def _write(run: Run, weights: dict[str, torch.Tensor]) -> str:
    """Rank 0; the reason if it failed."""
    partial, final = run.folder / "student.partial", run.folder / "student"
    try:
        for leftover in (partial, final):
            shutil.rmtree(leftover, ignore_errors=True)
        tokenizer = run.inputs.tokenizer
        tokenizer.save(partial)
        ids = {"pad": tokenizer.pad_id, "cls": tokenizer.cls_id, "sep": tokenizer.sep_id}
        save_model(run.engine.module, partial, run.inputs.model_type, weights, ids)
        fsync_files(partial)
        rename(partial, final)
    except OSError as error:
        return str(error)
    return ""
