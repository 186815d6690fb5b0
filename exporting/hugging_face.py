"""The Hugging Face folder of an export, which transformers, its pipelines and sentence-transformers open, and its proof."""

import json
import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import transformers

from evaluation.speed_models import load
from exporting.plain import PlainModel
from exporting.source import Head, Source
from exporting.variant import Batch, Outputs, Run, Variant, pad

TOLERANCE = 1e-4
"""Between the logits of the model that was given, of its folder loaded again, and of the plain graph."""
TOKENIZER_FILES = ("vocab.txt", "vocab.json", "merges.txt", "sentencepiece.bpe.model", "special_tokens_map.json")
"""Beside tokenizer.json: older readers and other languages read these."""


@dataclass(frozen=True, kw_only=True)
class Equality:
    """Largest differences between logits."""

    folder: float
    """Of the folder loaded again."""
    plain: float
    """Of the graph that the other formats are made of."""
    inputs: int
    tokens: int


def write_hugging_face(source: Source, folder: Path) -> Variant:
    """Configuration, fp32 weights and tokenizer; of a masked LM also how sentence-transformers pools it. Errors: OSError."""
    source.model.save_pretrained(folder)
    shutil.copymode(folder / "config.json", folder / "model.safetensors")  # written for its owner's eyes only
    _write_tokenizer(source, folder)
    if source.head is Head.MASKED_LM:
        _write_pooling(source, folder)
    return Variant(
        name="PyTorch",
        format="hf",
        precision="fp32",
        file="model.safetensors",
        runtime=f"transformers {transformers.__version__}, torch {torch.__version__}",
        load=load_hugging_face,
        remark="the reference of all others",
    )


def _write_tokenizer(source: Source, folder: Path) -> None:
    tokenizer = source.tokenizer
    tokenizer.backend_tokenizer.no_truncation()  # what the last call asked for would be stored
    tokenizer.backend_tokenizer.no_padding()
    for name in ("is_local", "local_files_only"):  # of how it was loaded here
        tokenizer.init_kwargs.pop(name, None)
    tokenizer.model_input_names = list(source.input_names)  # DistilBERT refuses BERT's token types
    tokenizer.init_kwargs["model_input_names"] = tokenizer.model_input_names  # named in both places it is stored
    tokenizer.save_pretrained(folder)
    for name in TOKENIZER_FILES:
        if (source.folder / name).is_file() and not (folder / name).exists():
            (folder / name).write_bytes((source.folder / name).read_bytes())


def _write_pooling(source: Source, folder: Path) -> None:
    """The mean of the last hidden states of all tokens, in the form that sentence-transformers has read since its first."""
    modules = [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    ]
    modes = ("cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens")
    pooling = {
        "word_embedding_dimension": source.model.config.hidden_size,
        **{f"pooling_mode_{mode}": mode == "mean_tokens" for mode in modes},
    }
    (folder / "1_Pooling").mkdir()
    for name, content in (
        ("modules.json", modules),
        ("1_Pooling/config.json", pooling),
        ("sentence_bert_config.json", {"max_seq_length": source.max_length, "do_lower_case": False}),
    ):
        (folder / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def load_hugging_face(folder: Path, threads: int) -> Run:
    """As `Variant.load`; the number of threads is torch's, and so all of the process's."""
    if threads:
        torch.set_num_threads(threads)
    return runner(load(str(folder)).module)


def runner(model: torch.nn.Module) -> Run:
    """One of transformers' models."""

    @torch.inference_mode()
    def run(batch: Batch) -> Outputs:
        output = model(**{name: torch.from_numpy(value) for name, value in batch.items()})
        names = ("logits",) if "logits" in output else ("start_logits", "end_logits")
        return tuple(output[name].float().numpy() for name in names)

    return run


def check_equality(source: Source, plain: PlainModel, folder: Path, inputs: Sequence[Batch]) -> Equality:
    """The longest input alone, the others as a padded batch.

    Errors: ValueError where one computes something else than what was given.
    """
    again = load_hugging_face(folder, 0)
    *short, longest = sorted(inputs, key=lambda one: one["input_ids"].shape[1])
    differences = {"folder": 0.0, "plain": 0.0}
    for batch in (longest, pad(short, source.tokenizer.pad_token_id)):
        expected = runner(source.model)(batch)
        if not math.isfinite(_difference(source.head, expected, expected, batch)):
            raise ValueError(
                f"{source.given}: its logits are not finite: its weights are damaged, or training diverged"
            )
        for name, found in (("folder", again(batch)), ("plain", _run_plain(plain, batch))):
            difference = _difference(source.head, expected, found, batch)
            differences[name] = float(np.maximum(differences[name], difference))  # nan stays; Python's max may drop it
    for what, value in (
        ("its folder, loaded again,", differences["folder"]),
        ("its exported graph", differences["plain"]),
    ):
        if not value <= TOLERANCE:
            raise ValueError(
                f"{source.given}: {what} computes something else: logits differ by {value:.2g}, {TOLERANCE:g} is allowed. "
                "This model cannot be exported"
            )
    tokens = sum(int(one["attention_mask"].sum()) for one in inputs)
    return Equality(inputs=len(inputs), tokens=tokens, **differences)


@torch.inference_mode()
def _run_plain(plain: PlainModel, batch: Batch) -> Outputs:
    return tuple(value.numpy() for value in plain(*(torch.from_numpy(batch[name]) for name in plain.input_names)))


def _difference(head: Head, expected: Outputs, found: Outputs, batch: Batch) -> float:
    """The largest one, at real tokens where each token has an output."""
    pairs = list(zip(expected, found, strict=True))
    if head in (Head.MASKED_LM, Head.SPAN):
        is_real = batch["attention_mask"].astype(bool)
        pairs = [(one[is_real], two[is_real]) for one, two in pairs]
    return float(np.max([np.abs(one - two).max() for one, two in pairs]))  # nan where one is
