"""One run: the loop, and what happens between updates."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from data.batching import Batch, BatchLoader, UpdateWindows, Window
from data.blend_report import epochs_by_name
from evaluation.heldout import evaluate
from incidents import record_incident, refuse_spike, rewind
from inputs import Inputs
from model.bert import MaskedLanguageModel
from model.objective import Losses, TripleLoss
from model.teacher import DTYPES
from planning import update_flops
from run_state import Config, describe_config, describe_state, find_resumable, restore, snapshot, state_tensors
from student_folder import save_student
from training.agreement import check_weights
from training.attempts import Attempts
from training.checkpoint import Checkpoints
from training.distributed import Ranks, agree, ask_largest, gather_objects, sum_over_ranks
from training.ds_config import DeepSpeedConfig
from training.engine import backward, optimizer_figures, start_engine
from training.lifecycle import ExitCode, StopRequest
from training.metrics import measure_gemm_peak
from training.out_of_memory import Rearrangement
from training.poison import Poison, SpikeRule
from training.prefetch import on_device
from training.profile import WARM_UP, Profiler
from training.report import Report
from training.run_folder import RunFolder, describe
from training.run_lock import RunLock
from training.state import generators
from training.watchdog import Watchdog

COMPONENTS = ("distillation", "mlm", "cosine")


class Trainer:
    """Holds what changes from update to update, and the parts that act on it. Every method is called by every rank."""

    def __init__(
        self,
        config: Config,
        ds: DeepSpeedConfig,
        inputs: Inputs,
        ranks: Ranks,
        *,
        folder: Path,
        lock: RunLock | None,
        attempts: Attempts | None,
        stop: StopRequest,
    ) -> None:
        self.config, self.ds, self.inputs, self.ranks, self.folder = config, ds, inputs, ranks, folder
        self.lock, self.attempts, self.stop = lock, attempts, stop
        self.watchdog = Watchdog(folder, ranks.rank, config.run.hang_timeout, stop)
        self.watchdog.start()
        self.windows = UpdateWindows(
            inputs.blend,
            sequences_per_update=ds.sequences_per_update,
            seed=config.run.seed,
            mask_probability=config.data.mask_probability,
        )
        self.num_updates = agree(ranks, self.count_updates)
        self.objective = TripleLoss(config.objective, inputs.student.kernels.vocab_loss)
        self.update, self.tokens, self.learning_rate = 0, 0, 0.0
        self.skipped_in_a_row, self.rewinds, self.spike = 0, 0, ""
        self.answer: Callable[[], list[int]] | None = None
        self.best: dict[str, float] = {}
        self.log: RunFolder | None = None
        self.resumed = agree(ranks, lambda: find_resumable(self)) if config.run.resume else None
        self.start_learning()
        if self.resumed is not None:
            restore(self, self.resumed)
        self.open_log()
        self.start_guarding()
        self.profiler = self.start_profiler()

    def start_learning(self) -> None:
        """The engine and what watches its losses."""
        config, ranks = self.config, self.ranks
        self.peak_flops = measure_gemm_peak(ranks.device, DTYPES[self.ds.precision])
        self.engine = start_engine(self.inputs.student, self.ds, self.num_updates, config.run.warmup_share)
        self.model: MaskedLanguageModel = self.engine.module
        self.report = Report(
            {name: getattr(config.objective, f"weight_{name}") for name in COMPONENTS if self.inputs.teacher},
            device=ranks.device,
            num_ranks=ranks.num_ranks,
            peak_flops=self.peak_flops,
        )
        self.parts = self.report.parts
        self.poison, self.spikes = Poison(self.model, ranks), SpikeRule(config.run.max_loss_ratio)
        torch.manual_seed(config.run.seed * 100_003 + ranks.rank)  # dropout: every rank its own
        self.settle()

    def start_guarding(self) -> None:
        """Checkpoints, and what to do when memory runs out."""
        self.checkpoints = Checkpoints(
            self.folder / "checkpoints",
            self.ranks,
            keep=self.config.run.keep_checkpoints,
            max_failures=self.config.run.max_failed_saves,
            say=self.say,
            before=self.check_folder,
            after=self.committed,
        )
        if self.resumed:
            self.checkpoints.continue_from(self.update)
        self.rearrangement = Rearrangement(
            self.ranks,
            self.folder,
            self.checkpoints,
            partial(snapshot, self),
            configured=self.ds.configured_micro_batch,
            current=self.ds.sequences_per_micro_batch,
            sequences_per_rank=self.ds.sequences_per_update // self.ranks.num_ranks,
            stop=self.stop,
        )
        self.watchdog.is_excused = lambda: self.rearrangement.is_begun
        if self.attempts:
            self.rearrangement.before_restart = self.attempts.rearranged
        self.rearrangement.listen()

    def count_updates(self) -> int:
        """Of the whole run, which must be long enough for its profile."""
        updates, profiled = self.config.run.max_updates, self.config.run.profile
        updates = updates or self.windows.num_updates(self.config.run.epochs)
        if profiled and profiled + WARM_UP > updates:
            raise ValueError(f"--profile {profiled} needs {profiled + WARM_UP} updates, this run has {updates}")
        return updates

    def start_profiler(self) -> Profiler | None:
        if not (self.log and self.config.run.profile):
            return None
        return Profiler(
            self.config.run.profile,
            first_update=self.update,
            folder=self.folder / "profile",
            parts=self.parts,
            say=self.say,
        )

    # -- the loop --

    def train(self) -> ExitCode:
        """Until the last update, or until the run is asked to stop."""
        while self.update < self.num_updates:
            if self.must_stop() or self.train_on():
                self.checkpoints.finish()
                saved = self.update == 0 or self.checkpoints.newest == self.update
                return ExitCode.PREEMPTED if saved else ExitCode.SAVE_FAILED
        self.checkpoints.finish()
        self.watchdog.beat("export", self.update)
        save_student(self)
        return ExitCode.FINISHED

    def train_on(self) -> bool:
        """Whether the run is to stop; False at its end, and after going back to a checkpoint."""
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
            self.report.restart_waiting()
            for window, micro_batches in loader:
                self.learning_rate = self.engine.get_lr()[0]
                with self.rearrangement.inside_update():
                    for number, batch in enumerate(on_device(micro_batches, self.ranks.device), start=1):
                        self.learn(batch, window, number)
                        with self.parts("optimizer"):
                            self.engine.step()
                self.advance(window)
                if self.is_due(self.config.run.log_every):
                    self.log_metrics(loader.wait_seconds)
                if self.skipped_in_a_row >= self.config.run.max_skipped_updates:
                    rewind(self)
                    return False
                if self.is_due(self.config.run.eval_every):
                    self.checkpoints.finish()  # a crash in a long evaluation must not lose it
                    self.evaluate()
                is_stopping = self.must_stop()
                if is_stopping or self.is_due(self.config.run.checkpoint_every):
                    self.save_checkpoint()
                if is_stopping:
                    return True
        return False

    def learn(self, batch: Batch, window: Window, number: int) -> None:
        """Forward and backward pass of the update's micro-batch `number`, from 1."""
        self.watchdog.beat(f"micro-batch {number}", self.update)
        if number == self.ds.micro_batches_per_update:
            self.answer = self.ask()
        with self.rearrangement.if_too_large():
            losses = self.losses(batch, window)
            self.report.add(losses._asdict())
            self.poison.add(batch.sequence_ids.tolist(), losses.total)
            with self.parts("backward"):
                backward(self.engine, refuse_spike(self, losses.total, number))

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
        """An update is over, applied or skipped."""
        self.update += 1
        self.tokens += window.attended
        is_applied = self.engine.was_step_applied()
        self.report.count_update(window.attended, update_flops(window, self.inputs, self.config.objective), is_applied)
        if is_applied:
            self.spikes.accept()
        self.skipped_in_a_row = 0 if is_applied else self.skipped_in_a_row + 1
        if not is_applied:
            record_incident(self, window)
        self.poison.forget()
        self.settle()
        if self.profiler:
            self.profiler.advance()
        if self.log:
            self.log.advance()
        if self.config.run.check_weights_every and self.update % self.config.run.check_weights_every == 0:
            check_weights(self.model, self.update)

    def is_due(self, every: int) -> bool:
        return self.update % every == 0 or self.update == self.num_updates

    def ask(self) -> Callable[[], list[int]]:
        """The question of `must_stop`, put while the last micro-batch is computed, so that nothing waits for the answer."""
        return ask_largest(self.ranks, [self.stop.is_asked(), self.checkpoints.is_writing])

    def must_stop(self) -> bool:
        """Whether any rank was asked to; and commits a checkpoint once all ranks have written their part of it."""
        answer, self.answer = self.answer or self.ask(), None
        is_asked, is_writing = answer()
        if self.checkpoints.is_pending and not is_writing:
            self.checkpoints.finish()
        if is_asked and self.update < self.num_updates:
            reason = next(filter(None, gather_objects(self.ranks, self.stop.reason)))
            self.say(f"stopping after update {self.update}: {reason}")
            return True
        return False

    # -- what is kept --

    def log_metrics(self, wait_seconds: float) -> None:
        sequences = self.update * self.ds.sequences_per_update
        progress = {
            "update": self.update,
            "epoch": sequences / self.inputs.blend.num_sequences,
            **epochs_by_name(self.inputs.blend, sequences),
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
        with self.report.clock.paused(), self.rearrangement.inside_update(), self.rearrangement.if_too_large():
            self.model.eval()
            figures = evaluate(
                self.model,
                self.inputs.teacher,
                self.beating("evaluation", self.inputs.heldout),
                temperature=self.config.objective.temperature,
                device=self.ranks.device,
                reduce=sum_over_ranks,
            )
            self.model.train()
        self.record({"update": self.update, **figures})
        if not self.best or figures["eval_mlm_loss"] < self.best["eval_mlm_loss"]:
            self.best = {"update": self.update, **figures}

    def save_checkpoint(self) -> None:
        self.watchdog.beat("checkpoint", self.update)
        with self.report.clock.paused():
            self.checkpoints.begin(describe_state(self), state_tensors(self))

    def settle(self) -> None:
        """The update is over: what the random generators are now, and where the device is, must be found again."""
        self.generators = generators(self.ranks.device)
        if self.ranks.device.type == "cuda":
            self.settled = torch.cuda.current_stream().record_event()

    def open_log(self) -> None:
        """The run folder's records, from `update` on."""
        if self.log:
            self.log.close()
        if self.ranks.is_first:
            self.log = RunFolder(self.folder, describe_config(self), self.update, self.num_updates)

    def committed(self, update: int) -> None:
        """Errors: OSError."""
        if self.attempts:
            self.attempts.committed(update)

    def check_folder(self) -> None:
        """Errors: OSError where the run folder is no longer this run's, or does not take its records."""
        if self.lock:
            self.lock.check()
        if self.log:
            self.log.sync()

    def say(self, line: str) -> None:
        if self.log:
            self.log.say(line)

    def record(self, fields: dict[str, Any]) -> None:
        if self.log:
            self.log.record(fields)
            self.log.say(describe(fields, self.num_updates))

    def beating(self, phase: str, batches: Any) -> Any:
        """The batches, with a heartbeat each."""
        for batch in batches:
            self.watchdog.beat(phase, self.update)
            yield batch

    def close(self) -> None:
        self.watchdog.close()
        self.rearrangement.close()
        self.checkpoints.close()
        if self.log:
            self.log.close()
