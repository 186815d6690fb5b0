"""Every family against transformers: the same logits in, the same logits out, no weight lost and none changed."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForMaskedLM, AutoTokenizer

from data.tokenizer import load_tokenizer
from model.families import FAMILIES, student_layout
from model.hub import load_model, read_config, read_special_ids, save_model
from model.student import make_student
from tests.model.helpers import logits_of, packed, published, published_logits
from tests.model.test_real_teacher import DATA

LENGTHS = (24, 7, 3, 12)
"""Uneven, and the longest as long as there are positions."""
ROBERTAS = ["roberta", "xlm-roberta"]


def load_published(folder: Path) -> torch.nn.Module:
    """transformers' own reading of a folder; fails where it misses or does not expect a weight."""
    model, info = AutoModelForMaskedLM.from_pretrained(folder, output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys")), info
    return model.eval()


def assert_same_weights(one: torch.nn.Module, other: torch.nn.Module) -> None:
    assert one.state_dict().keys() == other.state_dict().keys()
    for name, value in one.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name


@pytest.mark.parametrize("pad", [None, 0, 5])
@pytest.mark.parametrize("model_type", FAMILIES)
def test_logits_equal_transformers(tmp_path: Path, model_type: str, pad: int | None) -> None:
    """`pad` moves RoBERTa's positions and leaves the others' where they are."""
    reference = published(model_type, **({} if pad is None else {"pad_token_id": pad}))
    reference.save_pretrained(tmp_path)
    model = load_model(tmp_path)
    assert model.config.max_positions == 24
    token_ids = packed(LENGTHS)[0]
    token_ids[token_ids == reference.config.pad_token_id] = 130  # transformers counts no position for a padding token
    ours, theirs = logits_of(model, LENGTHS, token_ids), published_logits(reference, LENGTHS, token_ids)
    assert theirs.std() > 0.2
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


@pytest.mark.parametrize("model_type", FAMILIES)
def test_a_student_starts_from_its_teachers_embeddings_and_is_saved_as_published(
    tmp_path: Path, model_type: str
) -> None:
    reference = published(model_type)
    reference.save_pretrained(tmp_path / "teacher")
    teacher = load_model(tmp_path / "teacher")
    student = make_student(teacher).eval()
    token_ids, position_ids, *_ = packed(LENGTHS)
    with torch.no_grad():
        embedded = student.encoder.embed(token_ids, position_ids)
        assert torch.equal(embedded, teacher.encoder.embed(token_ids, position_ids))
        embeddings = reference.base_model.embeddings
        theirs = torch.cat([embeddings(input_ids=row[None])[0] for row in token_ids.split(LENGTHS)])
    torch.testing.assert_close(embedded, theirs, rtol=0, atol=2e-6)

    layout, _ = student_layout(*read_config(tmp_path / "teacher"))
    assert layout == {"bert": "distilbert"}.get(model_type, model_type)
    ids = {"pad": 7, "cls": 8, "sep": 9}
    save_model(student, tmp_path / "student", layout, student.state_dict(), ids)
    opened = load_published(tmp_path / "student")
    assert type(opened).__name__ == FAMILIES[layout].class_name
    assert opened.config.pad_token_id == 7
    if model_type in ROBERTAS:
        assert (opened.config.bos_token_id, opened.config.eos_token_id) == (8, 9)
        assert opened.config.max_position_embeddings == 24 + 8
    token_ids[token_ids == 7] = 130
    ours, theirs = logits_of(student, LENGTHS, token_ids), published_logits(opened, LENGTHS, token_ids)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


@pytest.mark.parametrize("model_type", FAMILIES)
def test_ours_to_theirs_to_ours_bit_for_bit(tmp_path: Path, model_type: str) -> None:
    published(model_type).save_pretrained(tmp_path / "theirs")
    model = load_model(tmp_path / "theirs")
    save_model(model, tmp_path / "ours", model_type, model.state_dict(), read_special_ids(tmp_path / "theirs"))
    opened = load_published(tmp_path / "ours")
    opened.save_pretrained(tmp_path / "whole")
    opened.save_pretrained(tmp_path / "shards", max_shard_size="20KB")
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 2
    (tmp_path / "bin").mkdir()
    torch.save(opened.state_dict(), tmp_path / "bin/pytorch_model.bin")  # with the tied decoder
    (tmp_path / "bin/config.json").write_bytes((tmp_path / "ours/config.json").read_bytes())
    for folder in ("ours", "whole", "shards", "bin"):
        assert_same_weights(load_model(tmp_path / folder), model)
        assert read_config(tmp_path / folder) == read_config(tmp_path / "theirs")


def test_what_no_token_uses_is_zero_and_the_padding_word_stays(tmp_path: Path) -> None:
    reference = published("roberta")
    with torch.no_grad():
        reference.roberta.embeddings.word_embeddings.weight[1] = 0.5
    reference.save_pretrained(tmp_path / "theirs")
    model = load_model(tmp_path / "theirs")
    save_model(model, tmp_path / "ours", "roberta", model.state_dict())
    before, after = (load_file(tmp_path / name / "model.safetensors") for name in ("theirs", "ours"))
    assert before.keys() == after.keys()
    positions = "roberta.embeddings.position_embeddings.weight"
    assert after[positions].shape == before[positions].shape == (26, 32)
    assert after[positions][:2].abs().max() == 0
    types = "roberta.embeddings.token_type_embeddings.weight"
    assert after[types].shape == (1, 32)
    assert after[types].abs().max() == 0
    torch.testing.assert_close(after[positions][2:], before[positions][2:] + before[types][0], rtol=0, atol=0)
    words = "roberta.embeddings.word_embeddings.weight"
    assert torch.equal(after[words], before[words])
    assert after[words][1].eq(0.5).all()


def test_names_of_old_roberta_checkpoints(tmp_path: Path) -> None:
    """roberta-base and its contemporaries: a buffer of positions, a pooler, the decoder with or without the bias twice."""
    published("roberta").save_pretrained(tmp_path)
    expected = load_model(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    extra = {
        "roberta.embeddings.position_ids": torch.arange(26)[None],
        "roberta.pooler.dense.weight": torch.zeros(32, 32),
        "lm_head.decoder.weight": weights["roberta.embeddings.word_embeddings.weight"].clone(),
    }
    renamed = {name: value for name, value in weights.items() if name != "lm_head.bias"}
    renamed["lm_head.decoder.bias"] = weights["lm_head.bias"].clone()
    for old in (weights | extra, renamed | extra, weights | renamed):
        save_file(old, tmp_path / "model.safetensors")
        assert_same_weights(load_model(tmp_path), expected)
    save_file(weights | {"lm_head.adapter.weight": torch.zeros(2)}, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=r"unexpected: .*lm_head\.adapter\.weight"):
        load_model(tmp_path)


@pytest.mark.parametrize("model_type", FAMILIES)
def test_a_decoder_of_its_own_is_refused(tmp_path: Path, model_type: str) -> None:
    """transformers 5 predicts with such a decoder; ours would silently not."""
    published(model_type).save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    for name in ("weight", "bias"):
        copy = f"{FAMILIES[model_type].decoder}.{name}"
        if copy in FAMILIES[model_type].names["head.bias"]:
            continue  # DistilBERT has one name for it
        own = FAMILIES[model_type].names["encoder.word.weight" if name == "weight" else "head.bias"][0]
        save_file(weights | {copy: weights[own] + 1.0}, tmp_path / "model.safetensors")
        with pytest.raises(ValueError, match=rf"{copy} differs from {own}"):
            load_model(tmp_path)


def test_a_headless_roberta_is_refused(tmp_path: Path) -> None:
    published("roberta").roberta.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"no masked-LM head|lacks weights"):
        load_model(tmp_path)
    weights = published("roberta").state_dict()
    save_file(
        {name: value.clone() for name, value in weights.items() if not name.startswith("lm_head.")},
        tmp_path / "model.safetensors",
    )
    with pytest.raises(ValueError, match=r"no masked-LM head \(missing lm_head\.dense\.weight.*RobertaForMaskedLM"):
        load_model(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pad_token_id": "1"}, "pad_token_id is '1': a token id is expected"),
        ({"pad_token_id": -1}, "pad_token_id is -1"),
        ({"max_position_embeddings": 2}, r"max_position_embeddings 2 leaves no position, .*from pad_token_id \+ 1"),
        ({"max_position_embeddings": "514"}, "max_position_embeddings is '514'"),
        ({"hidden_act": "gelu_new"}, "activation 'gelu_new'"),
    ],
)
def test_a_configuration_that_cannot_be_is_named(tmp_path: Path, change: dict, message: str) -> None:
    published("roberta").save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(ValueError, match=rf"config\.json: {message}"):
        load_model(tmp_path)


def test_a_bert_that_distilberts_layout_cannot_hold_keeps_its_own(tmp_path: Path) -> None:
    published("bert", layer_norm_eps=1e-5).save_pretrained(tmp_path / "teacher")
    layout, why = student_layout(*read_config(tmp_path / "teacher"))
    assert layout == "bert"
    assert why == "the teacher's layer_norm_eps is 1e-05, DistilBERT's layout fixes it at 1e-12"
    student = make_student(load_model(tmp_path / "teacher")).eval()
    with pytest.raises(ValueError, match=r"layer_norm_eps is 1e-05.*Save it as bert"):
        save_model(student, tmp_path / "student", "distilbert", student.state_dict())
    save_model(student, tmp_path / "student", layout, student.state_dict())
    token_ids = packed(LENGTHS)[0]
    theirs = published_logits(load_published(tmp_path / "student"), LENGTHS, token_ids)
    torch.testing.assert_close(logits_of(student, LENGTHS, token_ids), theirs, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("model_type", "vocab_size", "layers", "heads"),
    [("roberta", 50265, 12, 2), ("roberta", 50265, 6, 1), ("xlm-roberta", 250002, 2, 4), ("bert", 119547, 3, 6)],
    ids=["roberta", "distilroberta", "xlm-roberta", "mbert"],
)
def test_vocabularies_of_the_published_models(
    tmp_path: Path, model_type: str, vocab_size: int, layers: int, heads: int
) -> None:
    """Real sizes, none a multiple of 64, in narrow models; what the widest ids predict is compared too."""
    reference = published(
        model_type, vocab_size=vocab_size, hidden_size=24, num_hidden_layers=layers, num_attention_heads=heads
    )
    reference.save_pretrained(tmp_path / "theirs")
    model = load_model(tmp_path / "theirs")
    token_ids = packed(LENGTHS, vocab_size)[0]
    token_ids[:2] = torch.tensor([vocab_size - 1, vocab_size - 2])
    ours, theirs = logits_of(model, LENGTHS, token_ids), published_logits(reference, LENGTHS, token_ids)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)
    save_model(model, tmp_path / "ours", model_type, model.state_dict())
    again = published_logits(load_published(tmp_path / "ours"), LENGTHS, token_ids)
    torch.testing.assert_close(ours, again, rtol=0, atol=1e-5)


MBERT = DATA / "vocab/bert-base-multilingual-cased-vocab.txt"


@pytest.mark.skipif(not MBERT.is_file(), reason=f"the real vocabulary is not at {MBERT}")
def test_multilingual_bert_reads_many_scripts(tmp_path: Path) -> None:
    """The real vocabulary, cased: what our tokenizer cuts, transformers cuts alike, and both models read it alike."""
    tokenizer = load_tokenizer(str(MBERT))
    assert tokenizer.vocab_size == 119547
    published("bert", vocab_size=119547).save_pretrained(tmp_path)
    tokenizer.save(tmp_path)
    texts = ["Die Größe der Stadt Zürich.", "El niño comió.", "東京は日本の首都です。", "Москва́ слеза́м не ве́рит"]
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    pieces = [[tokenizer.cls_id, *ids, tokenizer.sep_id] for ids in tokenizer.encode_batch(texts)]
    assert [list(piece) for piece in pieces] == theirs(texts)["input_ids"]
    token_ids, lengths = torch.tensor([int(i) for piece in pieces for i in piece]), tuple(map(len, pieces))
    assert max(lengths) <= 24
    model = load_model(tmp_path)
    expected = published_logits(load_published(tmp_path), lengths, token_ids)
    torch.testing.assert_close(logits_of(model, lengths, token_ids), expected, rtol=0, atol=1e-5)
