"""What a run reads, loaded and found to fit together before anything is trained: corpora, teacher, student.

Every function here raises ValueError or OSError for what the user can change, with the value, the reason and what to do.
"""

import dataclasses
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from data.batch import Sequences
from data.batching import Blend, Corpus, FixedBatches, fixed_batches
from data.blend_checks import check_held_out
from data.config import DataConfig
from data.tokenizer import Tokenizer, vocabulary_fingerprint
from evaluation.heldout import evaluate, frequency_loss
from model.bert import MaskedLanguageModel
from model.compiled import check_compiler, compile_layers
from model.config import EncoderConfig, StudentConfig, read_json
from model.families import parse_config, student_layout
from model.hub import load_model, read_config, resolve_folder
from model.kernels.choice import Kernels, choose_kernels
from model.student import make_random, make_student
from model.teacher import DTYPES, Teacher, choose_dtype
from training.distributed import Ranks, sum_over_ranks
from training.ds_config import DeepSpeedConfig
from training.engine_memory import resident_bytes

SEQUENCES_TO_CHECK_TEACHER = 64


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What a run reads, loaded and found to fit together."""

    blend: Blend
    tokenizer: Tokenizer
    """The corpora's, which goes into the student's folder: loaded now, so that it is not missed after the last update."""
    heldout: FixedBatches | None
    teacher: Teacher | None
    student: MaskedLanguageModel
    model_type: str
    """Layout of the folder the student is saved as: its teacher's family decides, or --architecture."""
    choices: list[str]
    """What was chosen for the user and why, printed once."""
    warnings: list[str]
    """What the user should know of the text, printed once."""
    teacher_sha256: str
    """Of the teacher's weights; empty without one."""
    resident_before: int
    """Bytes of this process before anything was loaded."""


def weights_sha256(model: MaskedLanguageModel) -> str:
    """Names and bytes of all weights, in order."""
    digest = hashlib.sha256()
    for name, value in model.state_dict().items():
        digest.update(name.encode())
        digest.update(value.cpu().contiguous().view(torch.uint8).numpy())
    return digest.hexdigest()


@dataclass(frozen=True, kw_only=True)
class InputLoader:
    """Loads what the flags name; every rank does it alone, nothing is communicated."""

    data: DataConfig
    source: StudentConfig
    ds: DeepSpeedConfig
    ranks: Ranks
    seed: int
    eval_sequences: int
    is_distillation: bool
    is_compiled: bool

    def load(self) -> Inputs:
        resident_before = resident_bytes()
        blend = Blend.open(self.data.data, max_length=self.data.max_length)
        heldout, warnings = self._load_heldout(blend)
        if self.source.architecture:
            teacher, student, model_type, choices = self._load_architecture()
        else:
            teacher, student, model_type, choices = self._load_pair(blend)
        self._check_fit(student, blend)
        if self.is_compiled:
            if self.source.kernels not in ("auto", "torch"):
                raise ValueError(
                    f"--compile fuses the layers itself: leave --kernels {self.source.kernels} out, or --compile"
                )
            check_compiler(self.ranks.device)
            for model in (student, teacher.model) if self.is_distillation and teacher else (student,):
                compile_layers(model, self.ranks.device)
            choices.append("compiled: every layer but its attention, when it first runs (the first update is slow)")
        return Inputs(
            blend=blend,
            tokenizer=blend.load_tokenizer(),
            heldout=heldout,
            teacher=teacher if self.is_distillation else None,
            student=student,
            model_type=model_type,
            choices=[*(corpus.note for corpus in blend.corpora if corpus.note), *choices],
            warnings=warnings,
            teacher_sha256=weights_sha256(teacher.model) if self.is_distillation and teacher else "",
            resident_before=resident_before,
        )

    def fixed_batches(self, source: Sequences, num_sequences: int) -> FixedBatches:
        """Sequences and masks that every run scores alike: seed 0 whatever --seed is."""
        return fixed_batches(
            source,
            num_sequences=num_sequences,
            sequences_per_batch=self.ds.sequences_per_micro_batch,
            seed=0,
            rank=self.ranks.rank,
            num_ranks=self.ranks.num_ranks,
            mask_probability=self.data.mask_probability,
            mask_smoothing=self.data.mask_smoothing,
        )

    def score_teacher(self, inputs: Inputs, temperature: float) -> dict[str, float]:
        """The teacher's own held-out figures; refuses one that word frequencies beat (the commonest silent mistake), and one
        that 8 bit change too much.

        All ranks must call it: the figures are summed over them.
        """
        assert inputs.teacher is not None
        batches = inputs.heldout  # not "or": a rank may hold none of the batches
        if batches is None:
            batches = self.fixed_batches(inputs.blend, SEQUENCES_TO_CHECK_TEACHER)
        options: dict[str, Any] = {"device": self.ranks.device, "reduce": sum_over_ranks}
        figures = evaluate(inputs.teacher, None, batches, temperature=1.0, **options)
        chance = frequency_loss(batches, inputs.blend.token_counts, **options)
        if self.source.check_teacher and not figures["eval_mlm_loss"] < chance:
            raise ValueError(
                f"--teacher {self.source.teacher} predicts masked words with a loss of {figures['eval_mlm_loss']:.3f}; "
                f"word frequencies alone reach {chance:.3f}. Wrong tokenizer, untrained head or wrong folder? "
                "--no_check_teacher trains anyway"
            )
        drift = {}
        if self.source.teacher_dtype == "fp8":
            drift = {"eval_teacher_drift": self._drift(inputs.teacher, batches, temperature)}
        if inputs.heldout is None:
            return drift  # text that is trained on tells whether the teacher can read, not how well
        return drift | {name.replace("eval_", "eval_teacher_"): value for name, value in figures.items()}

    def _drift(self, teacher: Teacher, batches: FixedBatches, temperature: float) -> float:
        """The distillation loss of the 8-bit teacher as a student of its 16-bit version, in the units of the student's."""
        dtype, _ = choose_dtype("fp8", self.ranks.device)
        folder = resolve_folder(self.source.teacher)
        exact = Teacher(load_model(folder, teacher.model.kernels), dtype, self.ranks.device)
        options: dict[str, Any] = {"device": self.ranks.device, "reduce": sum_over_ranks}
        drift = evaluate(teacher, exact, batches, temperature=temperature, **options)["eval_distillation"]
        if not drift <= self.source.teacher_max_drift:
            raise ValueError(
                f"--teacher_dtype fp8 changes the predictions of --teacher {self.source.teacher} by a distillation loss of "
                f"{drift:.2g}, above --teacher_max_drift {self.source.teacher_max_drift}: use --teacher_dtype auto"
            )
        return drift

    def _load_heldout(self, blend: Blend) -> tuple[FixedBatches | None, list[str]]:
        if not self.data.eval_data:
            return None, []
        heldout = Corpus.open(self.data.eval_data, max_length=self.data.max_length)
        warnings = check_held_out(heldout, blend.corpora)
        return self.fixed_batches(heldout, self.eval_sequences), warnings

    def _load_architecture(self) -> tuple[None, MaskedLanguageModel, str, list[str]]:
        """A model from random weights, for --objective mlm."""
        path, dropout = self.source.architecture, self.source.dropout
        if self.is_distillation:
            raise ValueError(f"--architecture {path} starts from random weights: it needs --objective mlm")
        if not Path(path).is_file():
            raise FileNotFoundError(f"no model configuration at --architecture {path}: a config.json is expected")
        shape, family = parse_config(read_json(Path(path)), path)
        shape = dataclasses.replace(shape, hidden_dropout=dropout, attention_dropout=dropout)
        kernels, why = self._choose_kernels(shape, DTYPES[self.ds.precision])
        student = make_random(shape, kernels=kernels, seed=self.seed)
        return None, student, family.model_type, [f"model: {path} from random weights, {why}"]

    def _load_pair(self, blend: Blend) -> tuple[Teacher, MaskedLanguageModel, str, list[str]]:
        """Teacher and student; under --objective mlm the teacher only lends the student its layers."""
        folder = resolve_folder(self.source.teacher)
        known = vocabulary_fingerprint(str(folder))
        if known is not None and known != blend.fingerprint:
            raise ValueError(
                f"--teacher {self.source.teacher} has another vocabulary than --data {blend.prefixes[0]}: it would "
                f"read other words. Prepare the corpus with --tokenizer {folder}"
            )
        dtype, why_dtype = choose_dtype(self.source.teacher_dtype, self.ranks.device)
        shape, family = read_config(folder)
        layout, why_layout = student_layout(shape, family)
        frozen = dataclasses.replace(shape, hidden_dropout=0.0, attention_dropout=0.0)
        teacher_kernels, why_teacher = self._choose_kernels(frozen, dtype)
        dropout = self.source.dropout
        taught = dataclasses.replace(shape, hidden_dropout=dropout, attention_dropout=dropout)
        kernels, why = self._choose_kernels(taught, DTYPES[self.ds.precision])
        if kernels.vocab_loss == "native" and dtype != torch.bfloat16:
            kernels = dataclasses.replace(kernels, vocab_loss="torch")
            why += "; but torch for vocab_loss (the native one needs a bf16 teacher)"
        published = load_model(folder, teacher_kernels)
        student = make_student(
            published,
            layers=self.source.layer_choice,
            init=self.source.student_init,
            dropout=dropout,
            kernels=kernels,
            seed=self.seed,
        )
        choices = [
            f"teacher: {folder}, {published.config.num_layers} layers, {str(dtype).removeprefix('torch.')} ({why_dtype}), "
            f"{why_teacher}",
            f"student: {student.config.num_layers} layers from {self.source.student_init}, {why}",
            f"student's folder: {layout} ({why_layout})",
        ]
        teacher = Teacher(published, dtype, self.ranks.device, self.source.teacher_dtype == "fp8")
        return teacher, student, layout, choices

    def _choose_kernels(self, shape: EncoderConfig, dtype: torch.dtype) -> tuple[Kernels, str]:
        return choose_kernels(
            self.source.kernels, self.source.attention, shape, self.ranks.device, dtype, self.is_compiled
        )

    def _check_fit(self, student: MaskedLanguageModel, blend: Blend) -> None:
        if student.config.vocab_size != blend.vocab_size:
            raise ValueError(
                f"the model has {student.config.vocab_size} tokens, --data {blend.prefixes[0]} was prepared with "
                f"{blend.vocab_size}. Prepare the corpus with the model's tokenizer"
            )
        if self.data.max_length > student.config.max_positions:
            raise ValueError(
                f"--max_length {self.data.max_length} exceeds the model's {student.config.max_positions} usable positions: "
                f"give --max_length {student.config.max_positions} or less"
            )
