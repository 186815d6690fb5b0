"""Distil a BERT-like teacher into a student of half its depth, or pre-train with --objective mlm.

    deepspeed --num_gpus 8 train.py --ds_config ds_configs/zero2.json --data corpus/wiki
    torchrun --nproc_per_node 8 train.py --ds_config ds_configs/zero2.json --data corpus/wiki:0.7 corpus/books:0.3

Precision, batch sizes, clipping, optimizer and learning rate are set in the DeepSpeed JSON.
"""

import dataclasses
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NoReturn

from command_line import parse
from data.config import DataConfig
from model.config import ObjectiveConfig, StudentConfig
from training.config import RunConfig
from training.lifecycle import CrashLoopError, ExitCode, StopRequest, leave_now, parse_duration, tell


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Every flag of this command, each declared beside its owner."""

    run: RunConfig
    data: DataConfig
    student: StudentConfig
    objective: ObjectiveConfig


if __name__ == "__main__":  # before the heavy imports, so that --help and a mistyped flag answer at once
    CONFIG = parse(TrainConfig, sys.argv[1:], __doc__ or "")
    STOP = StopRequest()

import traceback

from data.blend_report import contributions, repetitions
from data.mapped_file import report_bus_errors
from inputs import InputLoader, Inputs
from plan_report import print_plan
from planning import Workload, against_actual
from trainer import Trainer
from training.attempts import Attempts
from training.distributed import Ranks, agree, from_first, is_lost_contact, leave_ranks, start_ranks
from training.ds_config import DeepSpeedConfig, read_ds_config
from training.lifecycle import RunError
from training.out_of_memory import read_micro_batch
from training.parts import communication_timed
from training.run_folder import choose_folder
from training.run_lock import RunLock
from training.watchdog import limited


def main(config: TrainConfig, stop: StopRequest) -> ExitCode:
    stop.stop_after(parse_duration(config.run.stop_after))
    ranks = start_ranks(config.run.hang_timeout)
    num_ranks = config.run.plan or ranks.num_ranks
    ds, loader, inputs = read_inputs(config, ranks, num_ranks)
    work = Workload(inputs, ds, config.objective, config.data, config.run, num_ranks, ranks.device)
    if config.run.plan:
        print_plan(work, ranks, dataclasses.asdict(config))
        return ExitCode.FINISHED
    teacher_figures = {}
    if inputs.teacher:
        teacher_figures = agree(ranks, lambda: loader.score_teacher(inputs, config.objective.temperature))
    folder = from_first(ranks, agree(ranks, lambda: choose_folder(config.run) if ranks.is_first else Path()))
    lock = agree(ranks, lambda: take_folder(config, folder) if ranks.is_first else None)
    attempts = Attempts(folder) if ranks.is_first else None
    code, trainer = ExitCode.FAILED, None
    try:
        open_attempt(attempts, config.run.max_crashes, ranks)
        trainer = Trainer(config, ds, inputs, ranks, folder=folder, lock=lock, attempts=attempts, stop=stop)
        stop.defer()
        trainer.watchdog.before_end = partial(end_attempt, attempts, ExitCode.HANG, trainer)
        if attempts:
            attempts.begin(trainer.update, ranks.num_ranks)
        introduce(trainer, teacher_figures)
        if trainer.update == 0:
            trainer.evaluate()
        with communication_timed(trainer.engine, trainer.parts):
            code = trainer.train()
        if code == ExitCode.FINISHED:
            trainer.say(against_actual(work, folder))
    except RunError as error:  # raised by all ranks
        code = error.code
        if ranks.is_first:
            tell(f"error: {error}", sys.stderr)
    except Exception as error:  # of this rank alone, perhaps: the others must not be waited for
        if trainer:
            trainer.rearrangement.wait_if_begun()
        code = explain(error, ranks, trainer)
        end_attempt(attempts, code, trainer)
        leave_now(code)
    end_attempt(attempts, code, trainer)
    for part in (trainer, lock):
        if part is not None:
            part.close()
    return code


def read_inputs(config: TrainConfig, ranks: Ranks, num_ranks: int) -> tuple[DeepSpeedConfig, InputLoader, Inputs]:
    """What the flags name, for a run of `num_ranks`."""
    fitting = from_first(ranks, agree(ranks, lambda: read_micro_batch(config.run.output)))
    ds = agree(
        ranks,
        lambda: read_ds_config(
            config.run.ds_config, num_ranks=num_ranks, device_type=ranks.device.type, fitting=fitting
        ),
    )
    loader = InputLoader(
        data=config.data,
        source=config.student,
        ds=ds,
        ranks=ranks,
        seed=config.run.seed,
        eval_sequences=config.run.eval_sequences,
        is_distillation=config.objective.objective == "distil",
        is_compiled=config.run.compile,
    )
    return ds, loader, agree(ranks, loader.load)


def take_folder(config: TrainConfig, folder: Path) -> RunLock:
    """Errors: ValueError where somebody writes it, or another run has been made in it while this one waited for the lock."""
    lock = RunLock(folder)
    choose_folder(dataclasses.replace(config.run, output=str(folder)))
    return lock


def open_attempt(attempts: Attempts | None, max_crashes: int, ranks: Ranks) -> None:
    """
    Errors: CrashLoopError, on every rank.
    """
    problem = None
    if attempts:
        try:
            attempts.open(max_crashes)
        except CrashLoopError as error:
            problem = error
    problem = from_first(ranks, problem)
    if problem is not None:
        raise problem


def end_attempt(attempts: Attempts | None, code: ExitCode, trainer: Trainer | None) -> None:
    if attempts and trainer:
        try:
            attempts.end(code, trainer.update)
        except OSError as error:
            tell(f"warning: {attempts.path} cannot be written: {error}", sys.stderr)


def explain(error: Exception, ranks: Ranks, trainer: Trainer | None) -> ExitCode:
    """Say what ended this rank, with the traceback unless it was another rank's end."""
    newest = trainer.checkpoints.newest if trainer else None
    kept = "nothing was saved yet" if newest is None else f"the last checkpoint is of update {newest}"
    where = f"rank {ranks.rank}, update {trainer.update}" if trainer else f"rank {ranks.rank}"
    if is_lost_contact(error):
        last = str(error).strip().splitlines()[-1]
        tell(f"error ({where}): lost contact with another rank, whose own output says why ({last}); {kept}", sys.stderr)
        return ExitCode.FAILED
    traceback.print_exc()
    tell(f"error ({where}): {type(error).__name__}: {error}; {kept}", sys.stderr)
    return ExitCode.FAILED


def introduce(trainer: Trainer, teacher_figures: dict[str, float]) -> None:
    """What was chosen and why, once, before the first update."""
    log, ds, ranks = trainer.log, trainer.ds, trainer.ranks
    if log is None:
        return
    if trainer.lock and trainer.lock.recovered:
        log.say(f"the run folder was left locked by {trainer.lock.recovered}, which is gone")
    for warning in ds.warnings:
        log.say(f"warning: {ds.path}: {warning}")
    for choice in trainer.inputs.choices:
        log.say(choice)
    log.say(
        f"update: {ds.sequences_per_update} sequences = {ranks.num_ranks} ranks x {ds.micro_batches_per_update} "
        f"micro-batches x {ds.sequences_per_micro_batch}, {ds.precision}, ZeRO-{ds.zero_stage}, {ranks.device.type}, "
        f"GEMM peak {trainer.peak_flops / 1e9:,.0f} GFLOP/s a rank"
    )
    log.say(
        f"data: {' '.join(trainer.config.data.data)}, {trainer.inputs.blend.num_sequences:,} sequences of at most "
        f"{trainer.config.data.max_length} tokens; updates {trainer.update} to {trainer.num_updates}"
    )
    num_sequences = trainer.num_updates * ds.sequences_per_update
    for line in contributions(trainer.inputs.blend, num_sequences):
        log.say(f"  {line}")
    for warning in (*trainer.inputs.warnings, *repetitions(trainer.inputs.blend, num_sequences)):
        log.say(f"warning: {warning}")
    if trainer.resumed is not None:
        log.say(f"resumed from {trainer.resumed.folder}{describe_change(trainer)}")
    log.say(f"run folder: {trainer.folder} (tensorboard --logdir {trainer.folder})")
    if teacher_figures and trainer.update == 0:
        trainer.record({"update": 0, **teacher_figures})


def describe_change(trainer: Trainer) -> str:
    """What is laid out differently than when the checkpoint was saved."""
    assert trainer.resumed is not None
    saved, ds = trainer.resumed.state, trainer.ds
    ranks, size = saved["num_ranks"], saved["sequences_per_micro_batch"]
    if (ranks, size) == (trainer.ranks.num_ranks, ds.sequences_per_micro_batch):
        return ""
    return (
        f", saved by {ranks} ranks x {ds.sequences_per_update // (ranks * size)} micro-batches x {size}: the same sequences "
        "in the same updates, losses equal to rounding (and other dropout)"
    )


def run_and_leave(config: TrainConfig, stop: StopRequest) -> NoReturn:
    """`main`, and the end of this process with its exit code."""
    report_bus_errors()
    try:
        code = int(main(config, stop))
    except SystemExit as ending:  # refused, by all ranks
        code = int(ending.code or 0)
    with limited("waiting for the other ranks to end", config.run.hang_timeout):
        leave_ranks()
    leave_now(code)


if __name__ == "__main__":
    run_and_leave(CONFIG, STOP)
