"""Updates that must not be made: told, recorded, and where that is allowed, left out for good."""

import math
from typing import Any

import torch

from data.batching import Window
from run_state import Run, remember_rewind, restore
from training.distributed import sum_over_ranks
from training.lifecycle import DivergedError
from training.poison import write_incident
from training.resume_point import find_checkpoint


def refuse_spike(run: Run, loss: torch.Tensor, micro_batch: int) -> torch.Tensor:
    """The loss to go backward from; NaN at the end of an update whose loss has jumped, so that every rank skips it."""
    run.spike = ""
    if not run.spikes.factor or micro_batch < run.ds.micro_batches_per_update:
        return loss
    whole = float(sum_over_ranks(run.report.sums.update_so_far()[:1]))
    if not math.isfinite(whole) or not run.spikes.is_spike(whole):
        run.spikes.candidate = whole
        return loss
    run.spike = f"its loss of {whole:.4g} is more than {run.spikes.factor:g} times the mean of the last updates"
    return loss * torch.nan


def record_incident(run: Run, window: Window) -> None:
    """Together: which sequences on which rank made DeepSpeed skip the update that is over.

    A 16-bit overflow that only lowers the loss scale is no incident.
    """
    found = [] if run.spike else run.poison.report()
    if run.ds.precision == "fp16" and not run.spike and all(entry["what"] == "gradients" for entry in found):
        return
    reason = run.spike or "its loss or gradients are not finite"
    incident: dict[str, Any] = {
        "update": run.update,
        "window": run.windows.position(run.update - 1),
        "reason": reason,
        "micro_batches": found,
        "sequence_ids": window.sequence_ids.tolist(),
    }
    if run.log is None:
        return
    for part in (incident, *found):
        part |= run.windows.blend.describe(part["sequence_ids"])
    where = ", ".join(f"rank {entry['rank']} micro-batch {entry['micro_batch'] + 1}" for entry in found[:3])
    try:
        path = f"see {write_incident(run.folder / 'incidents', incident)}"
    except OSError as error:
        path = f"and its sequences could not be recorded: {error}"
    run.say(f"warning: update {run.update} is skipped: {reason}{f' ({where})' if where else ''}; {path}")


def rewind(run: Run) -> None:
    """Together: back to the last checkpoint, to go on without what the updates since then that were skipped trained on.

    Errors: DivergedError where that is not allowed, or no more, or there is no checkpoint.
    """
    run.checkpoints.finish()
    allowed, since = run.config.run.rewinds, run.update - run.skipped_in_a_row
    diverged = (
        f"{run.skipped_in_a_row} updates in a row, up to {run.update}, were skipped: the loss had jumped, or it or its "
        "gradients were not finite; checkpoints are untouched. Lower the learning rate, or resume from an earlier one"
    )
    if run.rewinds >= allowed:
        raise DivergedError(f"{diverged}. --rewinds {allowed} does not allow to go back to the last checkpoint (again)")
    skipped = {update: run.windows.position(update) for update in range(since, run.update)}
    rewinds, left_out = run.rewinds + 1, run.windows.left_out
    checkpoint = find_checkpoint(run.checkpoints.folder, run.ranks, run.say)
    if checkpoint is None:
        raise DivergedError(f"{diverged}. There is no checkpoint to go back to")
    restore(run, checkpoint)
    # What was skipped before the checkpoint is behind it: left out, it would push back what was trained on.
    harmful = [position for update, position in skipped.items() if update >= run.update]
    run.windows.left_out = tuple(sorted({*run.windows.left_out, *left_out, *harmful}))
    run.rewinds, run.skipped_in_a_row, run.checkpoints.newest = rewinds, 0, run.update
    remember_rewind(run)
    run.open_log()
    run.say(f"rewound to update {run.update}; windows {harmful} are left out ({rewinds} of {allowed} times)")
