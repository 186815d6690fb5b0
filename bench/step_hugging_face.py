"""The other side of `bench.step`: what a user has without us. Hugging Face's modules with their default attention, and
the triple loss written in eager PyTorch over full logits, the way the published distillation script computes it.

In its favour: positions are selected by row (the script expands its mask to the whole vocabulary), and no tensor is kept
alive longer than the update needs it. Their DistilBERT also has one dropout less in a layer than BERT and our student (none
after the attention's output). On a CPU autocast leaves logits and both softmaxes in bf16, with only the sums in fp32:
cheaper than our loss and less exact; on CUDA it computes them in fp32.

Shapes: S sequences, L tokens of each, V vocabulary, H width.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import BertConfig, BertForMaskedLM, DistilBertConfig, DistilBertForMaskedLM
from transformers.modeling_outputs import MaskedLMOutput

from bench.workload import BETAS, EPS, LEARNING_RATE, MAX_GRAD_NORM, WEIGHT_DECAY, Workload
from data.batch import Batch
from model.config import EncoderConfig, ObjectiveConfig
from training.engine import parameter_groups

IGNORED_LABEL = -100  # CrossEntropyLoss's default


class HuggingFaceSide:
    def __init__(self, workload: Workload, batch: Batch, device: torch.device) -> None:
        shape = (workload.sequences, workload.length)
        labels = torch.full((batch.num_tokens,), IGNORED_LABEL)
        labels[batch.masked_positions] = batch.masked_labels
        self.labels = labels.view(shape).to(device)
        self.input_ids = batch.token_ids.view(shape).to(device)
        self.attention_mask = torch.ones_like(self.input_ids)
        torch.manual_seed(0)
        self.teacher = BertForMaskedLM(bert_config(workload.teacher)).to(device).eval().requires_grad_(False)
        self.student = DistilBertForMaskedLM(distilbert_config(workload.student)).to(device).train()
        self.micro_batches = workload.micro_batches
        groups = parameter_groups(self.student, WEIGHT_DECAY)
        self.adamw = torch.optim.AdamW(groups, lr=LEARNING_RATE, betas=BETAS, eps=EPS, fused=True)
        is_autocast = workload.variant != "hf_fp32"
        self.autocast = torch.autocast(device.type, torch.bfloat16, enabled=is_autocast)
        self.config = ObjectiveConfig()
        attention = self.student.config._attn_implementation
        self.setup = f"{'fp32 weights, autocast bf16' if is_autocast else 'fp32'}, attention {attention}"
        self.triple_loss: Callable[..., Tensor] = eager_triple_loss
        if workload.variant == "hf_compiled":
            self.teacher.compile(dynamic=False)
            self.student.compile(dynamic=False)
            self.triple_loss = torch.compile(eager_triple_loss, dynamic=False)
            self.setup += ", modules and loss compiled"

    @torch.no_grad()
    def teach(self) -> MaskedLMOutput:
        return self._run(self.teacher)

    def study(self) -> MaskedLMOutput:
        return self._run(self.student)

    def loss(self, prediction: MaskedLMOutput, target: MaskedLMOutput) -> Tensor:
        with self.autocast:
            total = self.triple_loss(
                prediction.logits,
                target.logits,
                prediction.hidden_states[-1],
                target.hidden_states[-1],
                self.attention_mask,
                self.labels,
                self.config,
            )
        return total / self.micro_batches

    def backward(self, loss: Tensor) -> None:
        loss.backward()

    def step(self, is_last: bool) -> None:
        if not is_last:
            return  # .grad adds up, in fp32 as the weights are
        nn.utils.clip_grad_norm_(self.student.parameters(), MAX_GRAD_NORM)
        self.adamw.step()
        self.adamw.zero_grad()

    def _run(self, model: nn.Module) -> MaskedLMOutput:
        # All hidden states, of which the loss reads one: these classes hand out the last in no other way.
        with self.autocast:
            return model(self.input_ids, attention_mask=self.attention_mask, output_hidden_states=True)


def eager_triple_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    student_hidden: Tensor,
    teacher_hidden: Tensor,
    attention_mask: Tensor,
    labels: Tensor,
    config: ObjectiveConfig,
) -> Tensor:
    """The loss of one micro-batch, averaged over its own positions.

    logits (S, L, V), hidden states (S, L, H), attention_mask (S, L) of 0 and 1, labels (S, L) with `IGNORED_LABEL` where
    nothing was masked.
    """
    attended = attention_mask.bool()
    temperature = config.temperature
    divergence = nn.KLDivLoss(reduction="batchmean")(
        F.log_softmax(student_logits[attended] / temperature, dim=-1),
        F.softmax(teacher_logits[attended] / temperature, dim=-1),
    )
    mlm = nn.CrossEntropyLoss(ignore_index=IGNORED_LABEL)(student_logits.flatten(0, 1), labels.flatten())
    student_rows, teacher_rows = student_hidden[attended], teacher_hidden[attended]
    same = student_rows.new_ones(student_rows.shape[0])
    cosine = nn.CosineEmbeddingLoss()(student_rows, teacher_rows, same)
    return (
        config.weight_distillation * temperature**2 * divergence
        + config.weight_mlm * mlm
        + config.weight_cosine * cosine
    )


def bert_config(config: EncoderConfig) -> BertConfig:
    return BertConfig(
        vocab_size=config.vocab_size,
        hidden_size=config.hidden_size,
        num_hidden_layers=config.num_layers,
        num_attention_heads=config.num_heads,
        intermediate_size=config.intermediate_size,
        max_position_embeddings=config.max_positions,
    )


def distilbert_config(config: EncoderConfig) -> DistilBertConfig:
    return DistilBertConfig(
        vocab_size=config.vocab_size,
        dim=config.hidden_size,
        n_layers=config.num_layers,
        n_heads=config.num_heads,
        hidden_dim=config.intermediate_size,
        max_position_embeddings=config.max_positions,
        dropout=config.hidden_dropout,
        attention_dropout=config.attention_dropout,
    )
