"""Distil a BERT-like teacher into a student of half its depth, or pre-train with --objective mlm.

    deepspeed --num_gpus 8 train.py --ds_config ds_configs/zero2.json --data corpus/wiki
    torchrun --nproc_per_node 8 train.py --ds_config ds_configs/zero2.json --data corpus/wiki

Precision, batch sizes, clipping, optimizer and learning rate are set in the DeepSpeed JSON.
"""

import dataclasses
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from command_line import parse
from data.config import DataConfig
from model.config import ObjectiveConfig, StudentConfig
from training.config import RunConfig


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Every flag of this command, each declared beside its owner."""

    run: RunConfig
    data: DataConfig
    student: StudentConfig
    objective: ObjectiveConfig


if __name__ == "__main__":  # before the heavy imports, so that --help and a mistyped flag answer at once
    CONFIG = parse(TrainConfig, sys.argv[1:], __doc__ or "")

import torch

from data.batching import Batch, BatchLoader, UpdateWindows, Window
from evaluation.heldout import evaluate
from inputs import InputLoader, Inputs
from model.bert import MaskedLanguageModel
from model.hub import save_model
from model.objective import Losses, TripleLoss
from model.teacher import DTYPES
from plan_report import print_plan
from planning import Workload, against_actual, update_flops
from training.checkpoint import load_checkpoint, read_state, save_checkpoint
from training.distributed import Ranks, agree, from_first, leave_ranks, start_ranks, sum_over_ranks
from training.ds_config import DeepSpeedConfig, read_ds_config
from training.engine import backward, master_weights, optimizer_figures, start_engine
from training.lifecycle import DivergedError, ExitCode
from training.metrics import measure_gemm_peak
from training.parts import communication_timed
from training.prefetch import on_device
from training.profile import WARM_UP, Profiler
from training.report import Report
from training.run_folder import RunFolder, choose_folder, describe

DECIDES_AN_UPDATE = ("optimizer", "gradient_clipping", "bf16", "fp16", "data_types", "communication_data_type")
"""Keys of the DeepSpeed JSON that a resumed run must share with the one it continues; the others only lay it out."""
COMPONENTS = ("distillation", "mlm", "cosine")


class Trainer:
    """One run: the loop, and what happens between updates."""

    def __init__(self, config: TrainConfig, ds: DeepSpeedConfig, inputs: Inputs, ranks: Ranks, folder: Path) -> None:
        self.config, self.ds, self.inputs, self.ranks, self.folder = config, ds, inputs, ranks, folder
        self.windows = UpdateWindows(
            inputs.corpus,
            sequences_per_update=ds.sequences_per_update,
            seed=config.run.seed,
            mask_probability=config.data.mask_probability,
        )
        self.num_updates = agree(ranks, self.count_updates)
        self.objective = TripleLoss(config.objective, inputs.student.kernels.vocab_loss)
        self.update, self.tokens, self.learning_rate = 0, 0, 0.0
        self.checkpoints = folder / "checkpoints"
        state = None
        if config.run.resume:
            state = agree(ranks, lambda: read_state(self.checkpoints, ranks, self.identity()))
        self.peak_flops = measure_gemm_peak(ranks.device, DTYPES[ds.precision])
        self.engine = start_engine(inputs.student, ds, self.num_updates, config.run.warmup_share)
        self.model: MaskedLanguageModel = self.engine.module
        torch.manual_seed(config.run.seed * 100_003 + ranks.rank)  # dropout: every rank its own
        if state is not None:
            load_checkpoint(self.engine, self.checkpoints, ranks, state)
            self.update, self.tokens = state["update"], state["tokens"]
        self.log = None
        if ranks.is_first:
            self.log = RunFolder(folder, self.describe_config(), self.update if state else None, self.num_updates)
        self.skipped_in_a_row = 0
        self.report = Report(
            {name: getattr(config.objective, f"weight_{name}") for name in COMPONENTS if inputs.teacher},
            device=ranks.device,
            num_ranks=ranks.num_ranks,
            peak_flops=self.peak_flops,
            skipped=self.engine.skipped_steps,
        )
        self.parts = self.report.parts
        self.profiler = None
        if self.log and config.run.profile:
            self.profiler = Profiler(
                config.run.profile,
                first_update=self.update,
                folder=folder / "profile",
                parts=self.parts,
                say=self.log.say,
            )

    def count_updates(self) -> int:
        """Of the whole run, which must be long enough for its profile."""
        updates, profiled = self.config.run.max_updates, self.config.run.profile
        updates = updates or self.windows.num_updates(self.config.run.epochs)
        if profiled and profiled + WARM_UP > updates:
            raise ValueError(f"--profile {profiled} needs {profiled + WARM_UP} updates, this run has {updates}")
        return updates

    def train(self) -> None:
        with BatchLoader(
            self.windows,
            rank=self.ranks.rank,
            num_ranks=self.ranks.num_ranks,
            sequences_per_micro_batch=self.ds.sequences_per_micro_batch,
            first_update=self.update,
            last_update=self.num_updates,
            prefetch=self.config.data.prefetch,
            mask_smoothing=self.config.data.mask_smoothing,
            pin_memory=self.ranks.device.type == "cuda",
        ) as loader:
            for window, micro_batches in loader:
                self.learning_rate = self.engine.get_lr()[0]
                for batch in on_device(micro_batches, self.ranks.device):
                    losses = self.losses(batch, window)
                    with self.parts("backward"):
                        backward(self.engine, losses.total)
                    with self.parts("optimizer"):
                        self.engine.step()
                    self.report.add(losses._asdict())
                self.advance(window)
                # A checkpoint is always preceded by a line: no sums are lost, and nothing diverged is saved.
                if self.is_due(self.config.run.log_every) or self.is_due(self.config.run.checkpoint_every):
                    self.log_metrics(loader.wait_seconds)
                if self.is_due(self.config.run.eval_every):
                    self.evaluate()
                if self.is_due(self.config.run.checkpoint_every):
                    self.save_checkpoint()
        self.save_student()

    def losses(self, batch: Batch, window: Window) -> Losses:
        """This micro-batch's share of the update's loss."""
        predict_at = self.objective.predict_at(batch.masked_positions)
        layout = (batch.token_ids, batch.position_ids, batch.cu_seqlens, batch.max_seqlen, predict_at)
        teacher = self.inputs.teacher
        if teacher is None:
            with self.parts("student"):
                prediction = self.engine(*layout)
            with self.parts("head"):
                return self.objective.masked_lm(prediction, batch.masked_labels, masked=window.masked)
        with self.parts("teacher"):
            target = teacher(*layout)
        with self.parts("student"):
            prediction = self.engine(*layout)
        with self.parts("head"):
            labels = (batch.masked_positions, batch.masked_labels)
            return self.objective(prediction, target, *labels, attended=window.attended, masked=window.masked)

    def advance(self, window: Window) -> None:
        self.update += 1
        self.tokens += window.attended
        self.report.count_update(window.attended, update_flops(window, self.inputs, self.config.objective))
        if self.profiler:
            self.profiler.advance()
        self.skipped_in_a_row = 0 if self.engine.was_step_applied() else self.skipped_in_a_row + 1
        if self.skipped_in_a_row == self.config.run.max_skipped_updates:
            raise DivergedError(
                f"{self.skipped_in_a_row} updates in a row, up to {self.update}, had gradients that are not finite and were "
                "skipped; checkpoints are untouched. Lower the learning rate, or resume from an earlier one"
            )
        if self.log:
            self.log.advance()

    def is_due(self, every: int) -> bool:
        return self.update % every == 0 or self.update == self.num_updates

    def log_metrics(self, wait_seconds: float) -> None:
        sequences = self.update * self.ds.sequences_per_update
        progress = {
            "update": self.update,
            "epoch": sequences / self.inputs.corpus.num_sequences,
            "sequences": sequences,
            "tokens": self.tokens,
            "learning_rate": self.learning_rate,
        }
        fields = self.report.line(progress, optimizer_figures(self.engine), wait_seconds)
        self.record(fields)
        self.report.check(fields)

    def evaluate(self) -> None:
        if self.inputs.heldout is None:
            return
        with self.report.clock.paused():
            self.model.eval()
            figures = evaluate(
                self.model,
                self.inputs.teacher,
                self.inputs.heldout,
                temperature=self.config.objective.temperature,
                device=self.ranks.device,
                reduce=sum_over_ranks,
            )
            self.model.train()
        self.record({"update": self.update, **figures})

    def save_checkpoint(self) -> None:
        with self.report.clock.paused():
            state = {"update": self.update, "tokens": self.tokens, "identity": self.identity()}
            save_checkpoint(self.engine, self.checkpoints, self.ranks, state)

    def save_student(self) -> None:
        """The student as a Hugging Face folder with its tokenizer, in fp32 master weights."""
        weights = master_weights(self.engine)
        if self.ranks.is_first:
            partial, final = self.folder / "student.partial", self.folder / "student"
            for leftover in (partial, final):
                shutil.rmtree(leftover, ignore_errors=True)
            shutil.copytree(self.inputs.corpus.tokenizer_folder, partial)
            pad_id = self.inputs.corpus.tokenizer.pad_id
            save_model(self.model, partial, self.inputs.model_type, weights, pad_token_id=pad_id)
            partial.rename(final)

    def record(self, fields: dict[str, Any]) -> None:
        if self.log:
            self.log.record(fields)
            self.log.say(describe(fields, self.num_updates))

    def identity(self) -> dict[str, Any]:
        """What a resumed run must share with the one it continues."""
        return {
            "corpus": self.inputs.corpus.sha256,
            "num_sequences": self.inputs.corpus.num_sequences,
            "sequences_per_update": self.ds.sequences_per_update,
            "num_updates": self.num_updates,
            "seed": self.config.run.seed,
            "max_length": self.config.data.max_length,
            "mask_probability": self.config.data.mask_probability,
            "mask_smoothing": self.config.data.mask_smoothing,
            "student": dataclasses.asdict(self.inputs.student.config),
            "objective": dataclasses.asdict(self.config.objective),
            "teacher": self.inputs.teacher_sha256,
            "warmup_share": self.config.run.warmup_share,
            "ds_config": {key: self.ds.raw.get(key) for key in DECIDES_AN_UPDATE},
        }

    def describe_config(self) -> dict[str, Any]:
        versions = {name: sys.modules[name].__version__ for name in ("torch", "deepspeed")}
        flags = {k: v for part in dataclasses.asdict(self.config).values() for k, v in part.items()}
        return {"flags": flags, "ds_config": self.ds.raw, "num_ranks": self.ranks.num_ranks, "versions": versions}


def main(config: TrainConfig) -> ExitCode:
    ranks = start_ranks()
    num_ranks = config.run.plan or ranks.num_ranks
    ds = agree(ranks, lambda: read_ds_config(config.run.ds_config, num_ranks=num_ranks, device_type=ranks.device.type))
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
    inputs = agree(ranks, loader.load)
    work = Workload(
        inputs=inputs,
        ds=ds,
        objective=config.objective,
        data=config.data,
        run=config.run,
        num_ranks=num_ranks,
        device=ranks.device,
    )
    if config.run.plan:
        print_plan(work, ranks, dataclasses.asdict(config))
        return ExitCode.FINISHED
    teacher_figures = {}
    if inputs.teacher:
        teacher_figures = agree(ranks, lambda: loader.score_teacher(inputs, config.objective.temperature))
    folder = from_first(ranks, agree(ranks, lambda: choose_folder(config.run) if ranks.is_first else Path()))
    trainer = Trainer(config, ds, inputs, ranks, folder)
    introduce(trainer, teacher_figures)
    try:
        if trainer.update == 0:
            trainer.evaluate()
        with communication_timed(trainer.engine, trainer.parts):
            trainer.train()
        if trainer.log:
            trainer.log.say(against_actual(work, folder))
    except DivergedError as error:
        if ranks.is_first:
            print(f"error: {error}", file=sys.stderr)
        return ExitCode.DIVERGED
    finally:
        if trainer.log:
            trainer.log.close()
    return ExitCode.FINISHED


def introduce(trainer: Trainer, teacher_figures: dict[str, float]) -> None:
    """What was chosen and why, once, before the first update."""
    log, ds, ranks = trainer.log, trainer.ds, trainer.ranks
    if log is None:
        return
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
        f"data: {trainer.config.data.data}, {trainer.inputs.corpus.num_sequences:,} sequences of at most "
        f"{trainer.config.data.max_length} tokens; updates {trainer.update} to {trainer.num_updates}"
    )
    log.say(f"run folder: {trainer.folder} (tensorboard --logdir {trainer.folder})")
    if teacher_figures and trainer.update == 0:
        trainer.record({"update": 0, **teacher_figures})


if __name__ == "__main__":
    exit_code = main(CONFIG)
    leave_ranks()
    sys.exit(int(exit_code))
