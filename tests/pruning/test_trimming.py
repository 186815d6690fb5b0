"""A model with a smaller vocabulary, and its folder as transformers and this project open it."""

import dataclasses
import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

from data.tokenizer import load_tokenizer as load_own
from data.train_tokenizer import train_byte_level_bpe, train_wordpiece
from finetuning.starts import load_tokenizer
from pruning.config import PruneConfig
from pruning.subject import Subject, open_subject
from pruning.trimming import Trimming, agreement, plan_trimming, trim_model, write_tokenizer
from pruning.vocabulary import new_ids_of
from tests.pruning.models import CONFIGS, VOCABULARY, batch, make


def trimming(kept: list[int]) -> Trimming:
    ids = np.array(kept, dtype=np.int64)
    return Trimming(record={}, kept=ids, new_ids=new_ids_of(ids, VOCABULARY), seen=0, sample=[])


@pytest.mark.parametrize(("family", "pad"), [("bert", 0), ("distilbert", 0), ("roberta", 1), ("roberta", 7)])
@torch.no_grad()
def test_logits_of_kept_tokens_are_those_of_the_whole_vocabulary(family: str, pad: int) -> None:
    """Also where the padding id moves, from which RoBERTa counts its positions."""
    model = make(family, "MaskedLM", pad_token_id=pad, eos_token_id=9)
    kept = sorted({0, 1, 2, pad, 9, *range(20, 45, 2)})
    small = trim_model(model, trimming(kept))
    inputs = batch((9, 5), pad=pad)
    inputs["input_ids"] = torch.where(
        inputs["attention_mask"].bool(), torch.tensor(kept)[inputs["input_ids"] % 13 + 4], pad
    )
    new = torch.from_numpy(new_ids_of(np.array(kept), VOCABULARY))
    expected = model(**inputs).logits[..., kept]
    found = small(input_ids=new[inputs["input_ids"]], attention_mask=inputs["attention_mask"]).logits
    real = inputs["attention_mask"].bool()
    torch.testing.assert_close(found[real], expected[real], atol=1e-5, rtol=1e-5)
    assert (small.config.pad_token_id, small.config.eos_token_id) == (int(new[pad]), int(new[9]))
    assert small.config.vocab_size == len(kept)
    assert small.get_output_embeddings().weight is small.get_input_embeddings().weight
    assert model.config.vocab_size == VOCABULARY


WORDS = ["alpha", "beta", "gamma", "delta", "naïve", "Москва", "1984", "don't", "e-mail", "東京", "abcab"]


def texts(number: int, seed: int) -> list[str]:
    draw = random.Random(seed)
    return [" ".join(draw.choices(WORDS, k=draw.randint(1, 9))) + draw.choice(".!? ") for _ in range(number)]


def xlm_roberta() -> transformers.XLMRobertaTokenizer:
    """Unigram pieces, fairseq's special tokens at the front, <mask> at the end."""
    draw = random.Random(0)
    marked = [f"\u2581{word}" for word in WORDS]
    pieces = {word[start:stop] for word in marked for start in range(4) for stop in range(start + 1, len(word) + 1)}
    names = ["<s>", "<pad>", "</s>", "<unk>", *sorted(pieces), "<mask>"]
    return transformers.XLMRobertaTokenizer(vocab=[(name, -draw.random() * 9) for name in names])


def folder_of(kind: str, path: Path) -> Path:
    """A model of the family that has such a tokenizer, with random weights."""
    family = {"wordpiece": "bert", "bpe": "roberta", "unigram": "xlm-roberta"}[kind]
    if kind == "wordpiece":
        train_wordpiece(texts(50, 0), 120).save(path)
    elif kind == "bpe":
        train_byte_level_bpe(texts(50, 0), 320).save(path)
    else:
        xlm_roberta().save_pretrained(path)
    config = transformers.XLMRobertaConfig(**CONFIGS["roberta"].to_dict()) if kind == "unigram" else CONFIGS[family]
    config = type(config)(**{**config.to_dict(), "vocab_size": load_own(str(path)).vocab_size})
    if kind == "bpe":
        config.pad_token_id = 1
    transformers.AutoModelForMaskedLM.from_config(config).save_pretrained(path)
    return path


def trimmed(kind: str, tmp_path: Path, vocab_size: int = 0) -> tuple[Subject, Trimming, Path]:
    folder = folder_of(kind, tmp_path / kind)
    (tmp_path / "seen.txt").write_text("\n\n".join(texts(8, 1)[:4]), encoding="utf-8")
    config = PruneConfig(
        model=str(folder),
        output=str(tmp_path / "out"),
        data="",
        trim_vocab=(str(tmp_path / "seen.txt"),),
        vocab_size=vocab_size,
    )
    subject = open_subject(config)
    plan = plan_trimming(config, subject)
    out = tmp_path / "out"
    trim_model(subject.model, plan).save_pretrained(out)
    write_tokenizer(subject, plan, out)
    return subject, plan, out


@pytest.mark.parametrize("kind", ["wordpiece", "bpe", "unigram"])
@torch.no_grad()
def test_a_trimmed_folder_opens_everywhere_and_reads_as_before(kind: str, tmp_path: Path) -> None:
    subject, plan, out = trimmed(kind, tmp_path)
    assert len(plan.kept) < subject.model.config.vocab_size
    before, after, own = subject.tokenizer, load_tokenizer(out), load_own(str(out))
    assert len(after) == own.vocab_size == len(plan.kept)
    found = agreement(before, after, plan.sample, plan.new_ids)
    assert found.same == found.texts == 4
    for text in [*plan.sample, *texts(20, 5), "Unseen words, and <b>markup</b> \U0001f600"]:
        ids = after(text, add_special_tokens=False)["input_ids"]
        assert own.encode_batch([text])[0].tolist() == ids  # this project's reader and transformers'
        if kind == "bpe":
            assert after.decode(ids) == text
    one, two = before("alpha", "beta"), after("alpha", "beta")
    assert len(one["input_ids"]) == len(two["input_ids"]) or (plan.new_ids[one["input_ids"]] < 0).any()
    for role in ("pad", "cls", "sep", "mask", "unk"):
        old, new = getattr(before, f"{role}_token_id"), getattr(after, f"{role}_token_id")
        assert plan.new_ids[old] == new
        assert before.convert_ids_to_tokens(old) == after.convert_ids_to_tokens(new)
    assert subject.model.config.pad_token_id is not None
    small = transformers.AutoModelForMaskedLM.from_pretrained(out).eval()
    assert small.config.vocab_size == len(after)
    text = plan.sample[0]
    expected = subject.model(**subject_inputs(before, text)).logits[..., plan.kept]
    torch.testing.assert_close(small(**subject_inputs(after, text)).logits, expected, atol=1e-5, rtol=1e-5)


def subject_inputs(tokenizer: transformers.PreTrainedTokenizerBase, text: str) -> dict[str, torch.Tensor]:
    encoded = tokenizer(text, return_tensors="pt")
    return {name: encoded[name] for name in ("input_ids", "attention_mask")}


def test_what_is_read_otherwise_is_counted(tmp_path: Path) -> None:
    subject, plan, out = trimmed("bpe", tmp_path, vocab_size=270)
    assert len(plan.kept) == 270
    found = agreement(subject.tokenizer, load_tokenizer(out), texts(40, 9), plan.new_ids)
    assert found.texts == 40
    assert found.same < 40
    assert found.tokens_after > found.tokens_before
    assert "read as before" in str(found)
    broken = dataclasses.replace(plan, new_ids=np.roll(plan.new_ids, 1))
    with pytest.raises(ValueError, match="although all of its tokens stay"):
        agreement(subject.tokenizer, subject.tokenizer, ["alpha"], np.maximum(broken.new_ids, 0))


def test_files_say_the_same(tmp_path: Path) -> None:
    """vocab.txt beside tokenizer.json, for whoever reads that one."""
    _, plan, out = trimmed("wordpiece", tmp_path)
    lines = (out / "vocab.txt").read_text(encoding="utf-8").splitlines()
    vocabulary = json.loads((out / "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"]
    assert {token: number for number, token in enumerate(lines)} == vocabulary
    assert len(lines) == len(plan.kept)
    assert load_own(str(out / "vocab.txt")).fingerprint == load_own(str(out)).fingerprint
