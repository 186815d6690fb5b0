"""A SentencePiece .model reads as transformers reads it from the same folder, in each family; and says what it cannot be."""

import io
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sentencepiece

from data.tokenizer import Tokenizer, load_tokenizer, vocabulary_fingerprint
from tests.data.helpers import random_texts

SIZE = 320
NAMES = {
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
    "pad_token": "<pad>",
    "unk_token": "<unk>",
}
ALBERT = {"control_symbols": ["[CLS]", "[SEP]", "[MASK]"], "pad_id": 0, "unk_id": 1, "bos_id": -1, "eos_id": -1}
MARKS = {"user_defined_symbols": ["(", ")", "-", ".", "\u2013"]}
TEXTS = [
    *random_texts(60, seed=1),
    "",
    " \n ",
    "The student's naïve FAÇADE (1984) - a\u2013b; 東京 tower... Москва! U.S. state-of-the-art",
    "``quoted'' and '''more''' a\u00b4b ΟΔΟΣ Σ İ ǅ ﬁ ½ ① ™ …",
    "a\x00b\x0bc\x0cd\x1ce\x1ff\x85g\xa0h\u200bi\u2028j\u3000k\ufeffl\ufffdm \u2581n▁▁o e\u0301 \u0488 \u302e",
    "a [MASK] b[SEP][CLS]c<mask> <s>d</s> <pad>\n<unk> e",
    "x" * 300 + " 9,9 10, 한국어 กขค 😀👍🏽",
]


def train(**options: Any) -> bytes:
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(random_texts(150)), model_writer=model, vocab_size=SIZE, minloglevel=3, **options
    )
    return model.getvalue()


def folder_with(path: Path, name: str, model: bytes, model_type: str = "", **settings: Any) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    (path / name).write_bytes(model)
    if model_type:
        (path / "config.json").write_text(json.dumps({"model_type": model_type}))
    if settings:
        (path / "tokenizer_config.json").write_text(json.dumps(settings))
    return path


def as_transformers_reads_it(folder: Path) -> Tokenizer:
    """The folder's tokenizer here, after its ids, special tokens and texts were compared; and again as saved."""
    from transformers import AutoTokenizer

    ours = load_tokenizer(str(folder))
    ours.save(folder / "saved")
    for tokenizer, place in ((ours, folder), (load_tokenizer(str(folder / "saved")), folder / "saved")):
        theirs = AutoTokenizer.from_pretrained(str(place))
        expected = theirs(TEXTS, add_special_tokens=False)["input_ids"]
        assert [ids.tolist() for ids in tokenizer.encode_batch(TEXTS)] == expected
        assert [tokenizer.decode(ids) for ids in expected] == theirs.batch_decode(expected)
        assert tokenizer.special_names == {role: getattr(theirs, role) for role in tokenizer.special_names}
        assert (tokenizer.cls_id, tokenizer.mask_id, tokenizer.unk_id, tokenizer.vocab_size) == (
            theirs.cls_token_id,
            theirs.mask_token_id,
            theirs.unk_token_id,
            len(theirs),
        )
        assert tokenizer.fingerprint == ours.fingerprint == vocabulary_fingerprint(place)
        assert tokenizer.special_ids == ours.special_ids
    copy = pickle.loads(pickle.dumps(ours))
    assert [ids.tolist() for ids in copy.encode_batch(TEXTS)] == [ids.tolist() for ids in ours.encode_batch(TEXTS)]
    return ours


@pytest.mark.parametrize("lowercase", [True, False])
def test_albert(tmp_path: Path, lowercase: bool) -> None:
    settings = {} if lowercase else {"do_lower_case": False, "keep_accents": True}
    ours = as_transformers_reads_it(
        folder_with(tmp_path, "spiece.model", train(**ALBERT, **MARKS), "albert", **settings)
    )
    first, second = (ids.tolist() for ids in ours.encode_batch(["ÉTUDE", "etude"]))
    assert (first == second) == lowercase
    assert ours.special_ids == frozenset(range(5))


def test_xlm_roberta_has_the_ids_of_fairseq(tmp_path: Path) -> None:
    ours = as_transformers_reads_it(folder_with(tmp_path, "sentencepiece.bpe.model", train(), "xlm-roberta"))
    assert (ours.cls_id, ours.pad_id, ours.sep_id, ours.unk_id, ours.mask_id) == (0, 1, 2, 3, SIZE + 1)


@pytest.mark.parametrize("options", [{}, {"byte_fallback": True}, {"normalization_rule_name": "identity"}])
def test_another_model_reads_as_sentencepiece_reads_it(tmp_path: Path, options: dict[str, Any]) -> None:
    model = train(**ALBERT, **options)
    folder = folder_with(tmp_path, "tokenizer.model", model, tokenizer_class="PreTrainedTokenizerFast", **NAMES)
    ours = load_tokenizer(str(folder))
    texts = [text for text in TEXTS if "[MASK]" not in text]
    expected = sentencepiece.SentencePieceProcessor(model_proto=model).encode(texts)
    assert [ids.tolist() for ids in ours.encode_batch(texts)] == expected
    bare = load_tokenizer(str(folder / "tokenizer.model"))
    assert [ids.tolist() for ids in bare.encode_batch(TEXTS)] == [ids.tolist() for ids in ours.encode_batch(TEXTS)]
    if not options:
        as_transformers_reads_it(folder)


@pytest.mark.parametrize("options", [{"remove_extra_whitespaces": False}, {"split_by_whitespace": False}])
def test_where_words_are_no_borders_a_text_is_read_whole(tmp_path: Path, options: dict[str, Any]) -> None:
    model = train(**ALBERT, **options)
    (tmp_path / "x.model").write_bytes(model)
    texts = ["the  student  of   and", "the of and student of the and of"]
    expected = sentencepiece.SentencePieceProcessor(model_proto=model).encode(texts)
    assert [ids.tolist() for ids in load_tokenizer(str(tmp_path / "x.model")).encode_batch(texts)] == expected


def test_the_fingerprint_sees_the_scores(tmp_path: Path) -> None:
    from sentencepiece import sentencepiece_model_pb2

    proto = sentencepiece_model_pb2.ModelProto.FromString(train(**ALBERT))  # type: ignore[attr-defined]
    (tmp_path / "a.model").write_bytes(proto.SerializeToString())
    proto.pieces[100].score -= 1.0
    (tmp_path / "b.model").write_bytes(proto.SerializeToString())
    first, second = (load_tokenizer(str(tmp_path / name)).fingerprint for name in ("a.model", "b.model"))
    assert first != second


def test_a_unigram_tokenizer_json_has_the_fingerprint_of_its_model(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    folder = folder_with(tmp_path / "a", "spiece.model", train(**ALBERT), "albert")
    AutoTokenizer.from_pretrained(str(folder)).save_pretrained(str(tmp_path / "b"))
    assert not (tmp_path / "b" / "spiece.model").exists()
    assert vocabulary_fingerprint(tmp_path / "b") == vocabulary_fingerprint(folder)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda model: model[:5000], r"is not a SentencePiece model \(.+\)\. Is the file complete\?"),
        (lambda model: b"", r"is not a SentencePiece model \(it has no pieces\)"),
        (lambda model: b"version https://git-lfs", r"is not a SentencePiece model"),
        (lambda model: model.replace(b"[MASK]", b"[MOSK]"), r"has no mask_token \(\[MASK\] or <mask>\)"),
        (lambda model: model.replace(b"[MASK]", b"[SEP]x"), r"has no mask_token"),
    ],
)
def test_a_damaged_model_is_refused(tmp_path: Path, damage: Callable[[bytes], bytes], reason: str) -> None:
    file = tmp_path / "spiece.model"
    file.write_bytes(damage(train(**ALBERT)))
    with pytest.raises(ValueError, match=reason) as refusal:
        load_tokenizer(str(tmp_path))
    assert str(file) in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_model_of_another_family_is_refused(tmp_path: Path) -> None:
    folder = folder_with(
        tmp_path, "sentencepiece.bpe.model", train(**ALBERT), tokenizer_class="XLMRobertaTokenizerFast"
    )
    with pytest.raises(ValueError, match=r"begins with \['<pad>', '<unk>', '\[CLS\]'\], not with <unk>, <s>, </s>"):
        load_tokenizer(str(folder))
