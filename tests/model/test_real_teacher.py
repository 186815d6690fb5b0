"""The real small teacher on real text: parity with transformers, and the student's first embeddings."""

import json
import lzma
import os
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForMaskedLM, AutoTokenizer

from model.hub import load_model
from model.kernels.choice import Kernels
from model.student import make_student
from tests.launch import ROOT
from tests.model.helpers import padded

DATA = Path(os.environ.get("DISTILLERY_DATA", ROOT.parent / "shared/data"))
TEACHER = DATA.parent / "models/minilm-l6-h384-mlm"
TEXT = DATA / "wiki/en-2018-heldout.jsonl.xz"

pytestmark = pytest.mark.skipif(
    not (TEACHER.is_dir() and TEXT.is_file()), reason=f"the real teacher and text are not at {TEACHER} and {TEXT}"
)


@pytest.fixture(scope="module")
def sentences() -> list[torch.Tensor]:
    tokenizer = AutoTokenizer.from_pretrained(TEACHER)
    with lzma.open(TEXT, "rt", encoding="utf-8") as file:
        texts = [json.loads(next(file))["text"] for _ in range(6)]
    lengths = (128, 17, 64, 5, 90, 40)
    return [
        tokenizer(text, truncation=True, max_length=length, return_tensors="pt")["input_ids"][0]
        for text, length in zip(texts, lengths, strict=True)
    ]


def pack(sentences: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, int, tuple[int, ...]]:
    lengths = tuple(len(sentence) for sentence in sentences)
    positions = torch.cat([torch.arange(length) for length in lengths])
    cu_seqlens = torch.tensor([0, *torch.tensor(lengths).cumsum(0).tolist()], dtype=torch.int32)
    return torch.cat(sentences), positions, cu_seqlens, max(lengths), lengths


@pytest.mark.parametrize("attention", ["blocked", "sdpa"])
def test_logits_equal_transformers(sentences: list[torch.Tensor], attention: str) -> None:
    """Logits reach 20 here, where one fp32 rounding is 2e-6; in float64 the implementations agree to rounding."""
    token_ids, positions, cu_seqlens, longest, lengths = pack(sentences)
    ids, mask = padded(token_ids, lengths)
    for dtype, bound in ((torch.float32, 5e-5), (torch.float64, 1e-12)):
        reference = AutoModelForMaskedLM.from_pretrained(TEACHER, dtype=torch.float32).to(dtype).eval()
        model = load_model(TEACHER, Kernels(attention=attention)).to(dtype)
        with torch.no_grad():
            theirs = reference(input_ids=ids, attention_mask=mask).logits[mask.bool()]
            ours = model.logits(model(token_ids, positions, cu_seqlens, longest).features)
        assert (ours - theirs).abs().max().item() <= bound


def test_student_embeds_exactly_as_its_teacher(sentences: list[torch.Tensor]) -> None:
    teacher = load_model(TEACHER)
    student = make_student(teacher).eval()
    token_ids, positions, *_ = pack(sentences)
    published = AutoModelForMaskedLM.from_pretrained(TEACHER, dtype=torch.float32).eval()
    with torch.no_grad():
        own = student.encoder.embed(token_ids, positions)
        assert torch.equal(own, teacher.encoder.embed(token_ids, positions))
        theirs = torch.cat([published.bert.embeddings(input_ids=s[None])[0] for s in sentences])
    assert (own - theirs).abs().max().item() <= 1e-5
