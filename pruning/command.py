"""prune.py from its flags to its last file."""

import copy
from pathlib import Path

import transformers
from torch import nn

from evaluation.results import write_json
from finetuning.starts import load_tokenizer
from folders import check_output, staged
from model.pruned_heads import pruned_heads
from pruning.config import PruneConfig
from pruning.folder import PRUNED, copy_tokenizer
from pruning.heads import Importance, choose_heads, num_gone, remove_heads
from pruning.measuring import TOLERANCE, figures_of, largest_difference, latency
from pruning.report import HeadsPruned, Pruning, Tried, VocabularyTrimmed, describe
from pruning.subject import PRUNING, Subject, keep_layers, load_model, open_subject
from pruning.text_yardstick import TextYardstick
from pruning.trimming import Trimming, agreement, plan_trimming, trim_model, write_tokenizer
from pruning.yardstick import TaskYardstick, Yardstick

PAGE = "PRUNING.md"
COMPARED = 8
"""Inputs on which transformers and the exported graph are compared, each with half of it beside, padded."""


def prune(config: PruneConfig, command: str) -> Pruning:
    """Errors: ValueError and FileNotFoundError for bad input, OSError where nothing can be written."""
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    subject = open_subject(config)
    output = Path(config.output).expanduser()
    check_output(output, PRUNED, [subject.folder])
    trimming = plan_trimming(config, subject) if config.trim_vocab else None
    yardstick = choose_yardstick(config, subject, trimming)
    print(f"{subject.folder}: {yardstick.title}", flush=True)
    model = keep_layers(subject, config.layers)
    tried, heads = _prune_heads(config, model, subject, yardstick)
    if trimming is not None:
        model = trim_model(model, trimming)
    with staged(output, PRUNED, [subject.folder]) as folder:
        report = _write(config, command, subject, yardstick, trimming, model, heads, tried, folder)
    print(f"{output}: {describe(report)}", flush=True)
    return report


def choose_yardstick(config: PruneConfig, subject: Subject, trimming: Trimming | None) -> Yardstick:
    """Errors: ValueError, FileNotFoundError."""
    if subject.task is not None:
        return TaskYardstick(config, subject)
    return TextYardstick(config, subject, trimming.new_ids if trimming else None)


def _prune_heads(
    config: PruneConfig, model: nn.Module, subject: Subject, yardstick: Yardstick
) -> tuple[tuple[Tried, ...], HeadsPruned | None]:
    """In place; before it, the shares of --sweep on copies."""
    if not (config.prune_heads or config.sweep):
        return (), None
    to_try = {share: num_gone(model.config, share, "--sweep") for share in config.sweep}
    wanted = num_gone(model.config, config.prune_heads, "--prune_heads") if config.prune_heads else None
    importance = yardstick.importance(model)
    tried = []
    for share, number in to_try.items():
        one, heads = copy.deepcopy(model), choose_heads(importance, model.config, number)
        remove_heads(one, heads)
        tried.append(Tried(share=share, heads=heads, scores=yardstick.score(one, subject.tokenizer, None)))
        print(f"  {tried[-1]}", flush=True)
    gone = pruned_heads(model.config) if wanted is None else choose_heads(importance, model.config, wanted)
    remove_heads(model, gone)
    return tuple(tried), HeadsPruned(
        share=config.prune_heads, gone=gone, importance=_by_head(importance), examples=yardstick.num_examples
    )


def _by_head(importance: Importance) -> dict[str, dict[str, float]]:
    return {str(layer): {str(head): value for head, value in heads.items()} for layer, heads in enumerate(importance)}


def _write(
    config: PruneConfig,
    command: str,
    subject: Subject,
    yardstick: Yardstick,
    trimming: Trimming | None,
    model: nn.Module,
    heads: HeadsPruned | None,
    tried: tuple[Tried, ...],
    folder: Path,
) -> Pruning:
    """The model, read back for every figure, and the report. Errors: OSError; ValueError where it computes otherwise."""
    model.save_pretrained(folder)
    vocabulary = None
    if trimming is None:
        copy_tokenizer(subject.folder, folder)
    else:
        write_tokenizer(subject, trimming, folder)
        vocabulary = _compare_tokenizers(config, subject, yardstick, trimming, folder)
    smaller, tokenizer = load_model(folder, subject.task), load_tokenizer(folder)
    inputs = yardstick.inputs(config.sentences or COMPARED)
    if trimming is not None:
        inputs = trimming.renumbered(inputs, subject.tokenizer.unk_token_id)
    difference = largest_difference(smaller, inputs[:COMPARED])
    print(f"  transformers and the exported graph: logits differ by at most {difference:.1e}", flush=True)
    if not difference <= TOLERANCE:
        raise ValueError(
            f"the pruned {subject.folder} gives logits in transformers that differ by {difference:g} from those of the "
            f"exported graph, more than {TOLERANCE:g}: it is not kept"
        )
    new_ids = trimming.new_ids if trimming else None
    before = figures_of(subject.model, yardstick.score(subject.model, subject.tokenizer, None), folder)
    after = figures_of(smaller, yardstick.score(smaller, tokenizer, new_ids), folder)
    speed = latency({"before": subject.model, "after": smaller}, inputs, config.rounds) if config.sentences else {}
    report = Pruning(
        command=command,
        model=str(subject.folder),
        task=subject.task.name if subject.task else "",
        max_length=subject.max_length,
        measured=yardstick.title,
        layers=config.layers or tuple(range(subject.model.config.num_hidden_layers)),
        heads=heads,
        vocabulary=vocabulary,
        before=before,
        after=after,
        speed=speed,
        tried=tried,
        difference=difference,
    )
    write_json(report.content(), folder / PRUNING)
    (folder / PAGE).write_text(report.markdown(), encoding="utf-8")
    return report


def _compare_tokenizers(
    config: PruneConfig, subject: Subject, yardstick: Yardstick, trimming: Trimming, folder: Path
) -> VocabularyTrimmed:
    after = load_tokenizer(folder)
    sample = agreement(subject.tokenizer, after, trimming.sample, trimming.new_ids)
    measured = agreement(subject.tokenizer, after, yardstick.texts(), trimming.new_ids)
    found = VocabularyTrimmed(
        sources=config.trim_vocab,
        seen=trimming.seen,
        before=subject.model.config.vocab_size,
        after=len(trimming.kept),
        sample=sample,
        measured=measured,
    )
    print(f"  {found}", flush=True)
    return found
