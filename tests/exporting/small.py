"""Small models with a real WordPiece vocabulary, in folders as students and finetune.py leave them."""

from pathlib import Path

import torch
import transformers

from data.train_tokenizer import train_wordpiece
from evaluation.tasks import TASKS
from exporting.passages import EVERYTHING
from finetuning.starts import head_of
from tests.evaluation.finetuned import result, write

VOCABULARY = 300
MAX_LENGTH = 128
TASK_LENGTH = 96
DISTILBERT = {"dim": 64, "n_heads": 4, "n_layers": 2, "hidden_dim": 96, "max_position_embeddings": MAX_LENGTH}
BERT = {
    "hidden_size": 64,
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "intermediate_size": 96,
    "max_position_embeddings": MAX_LENGTH,
}


def write_model(folder: Path, head: type, family: str = "distilbert", **config: object) -> Path:
    """Random weights, large enough for answers to be far apart; the tokenizer as our runs save it."""
    tokenizer = train_wordpiece([EVERYTHING], VOCABULARY)
    kinds = {"distilbert": (transformers.DistilBertConfig, DISTILBERT), "bert": (transformers.BertConfig, BERT)}
    kind, shape = kinds[family]
    torch.manual_seed(1)
    model = head.from_config(kind(vocab_size=tokenizer.vocab_size, **shape, **config))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    folder.mkdir(parents=True)
    model.save_pretrained(folder)
    tokenizer.save(folder)
    return folder


def write_student(folder: Path) -> Path:
    return write_model(folder, transformers.AutoModelForMaskedLM)


def write_task(folder: Path, task: str, family: str = "distilbert") -> Path:
    """OUTPUT/TASK with its result and model."""
    is_span = task == "squad"
    head = transformers.AutoModelForQuestionAnswering if is_span else transformers.AutoModelForSequenceClassification
    write_model(folder / task / "model", head, family, **head_of(TASKS[task]))
    write(folder, result(task, 0.8, saved="model", settings={"max_length": TASK_LENGTH}))
    return folder / task
