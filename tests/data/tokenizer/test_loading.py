"""The tokenizer agrees with transformers on the same files, however it was loaded, and says what it cannot load."""

import json
import shutil
from pathlib import Path

import pytest
from tokenizers import Tokenizer as Backend

from data.tokenizer import Tokenizer, load_tokenizer, vocabulary_fingerprint
from data.train_tokenizer import train_wordpiece
from tests.data.helpers import random_texts

AWKWARD = [
    "",
    "   ",
    "The student's naïve FAÇADE; 東京 tower... Москва!",
    "a literal [MASK] and [SEP], a\x00control\x07character, a\u200bzero width, a\u2028line separator",
    "x" * 250 + " after a word too long",
    "emoji 😀👍🏽 and é against é",
]


def ids_of(tokenizer: Tokenizer, texts: list[str]) -> list[list[int]]:
    return [ids.tolist() for ids in tokenizer.encode_batch(texts)]


def test_tokens_equal_transformers(tokenizer_folder: Path) -> None:
    from transformers import AutoTokenizer

    theirs = AutoTokenizer.from_pretrained(str(tokenizer_folder))
    ours = load_tokenizer(str(tokenizer_folder))
    texts = random_texts(60, seed=1) + AWKWARD
    assert ids_of(ours, texts) == [theirs(text, add_special_tokens=False)["input_ids"] for text in texts]
    expected = [ours.cls_id, *ids_of(ours, texts[:1])[0], ours.sep_id]
    assert theirs(texts[0])["input_ids"] == expected
    assert (ours.cls_id, ours.sep_id, ours.mask_id, ours.pad_id, ours.unk_id) == (
        theirs.cls_token_id,
        theirs.sep_token_id,
        theirs.mask_token_id,
        theirs.pad_token_id,
        theirs.unk_token_id,
    )
    assert ours.vocab_size == len(theirs)
    assert ours.special_ids == set(theirs.all_special_ids)


@pytest.mark.parametrize("lowercase", [True, False])
def test_every_way_of_loading_is_the_same_tokenizer(tmp_path: Path, lowercase: bool) -> None:
    texts = random_texts(100)
    trained = train_wordpiece(texts, 400, lowercase=lowercase)
    trained.save(tmp_path / "whole")
    shutil.copytree(tmp_path / "whole", tmp_path / "no_json")
    (tmp_path / "no_json" / "tokenizer.json").unlink()
    places = ["whole", "whole/tokenizer.json", "whole/vocab.txt", "no_json"]
    loaded = [load_tokenizer(str(tmp_path / place)) for place in places]
    assert {tokenizer.fingerprint for tokenizer in loaded} == {trained.fingerprint}
    expected = ids_of(trained, texts + AWKWARD)
    assert [ids_of(tokenizer, texts + AWKWARD) for tokenizer in loaded] == [expected] * 4
    assert (
        vocabulary_fingerprint(tmp_path / "whole")
        == vocabulary_fingerprint(tmp_path / "no_json")
        == trained.fingerprint
    )


def test_the_configuration_decides_whether_a_vocabulary_is_lowercased(tmp_path: Path, tokenizer: Tokenizer) -> None:
    tokenizer.save(tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    text = ["the student"]
    assert ids_of(load_tokenizer(str(tmp_path)), ["The Student"]) == ids_of(tokenizer, text)
    (tmp_path / "tokenizer_config.json").write_text('{"do_lower_case": false}')
    assert ids_of(load_tokenizer(str(tmp_path)), ["The Student"]) != ids_of(tokenizer, text)


def test_nothing_is_cut_or_padded_though_the_file_says_so(tmp_path: Path, tokenizer: Tokenizer) -> None:
    tokenizer.save(tmp_path)
    backend = Backend.from_file(str(tmp_path / "tokenizer.json"))
    backend.enable_truncation(max_length=8)
    backend.enable_padding(length=8)
    backend.save(str(tmp_path / "tokenizer.json"))
    texts = ["the", "the student " * 50]
    assert ids_of(load_tokenizer(str(tmp_path)), texts) == ids_of(tokenizer, texts)


def test_decode_shows_special_tokens(tokenizer: Tokenizer) -> None:
    ids = [tokenizer.cls_id, *tokenizer.encode_batch(["the student"])[0].tolist(), tokenizer.sep_id]
    assert tokenizer.decode(ids) == "[CLS] the student [SEP]"


def test_the_fingerprint_sees_order(tmp_path: Path, tokenizer: Tokenizer) -> None:
    tokenizer.save(tmp_path)
    lines = (tmp_path / "vocab.txt").read_text(encoding="utf-8").split("\n")[:-1]
    lines[50], lines[51] = lines[51], lines[50]
    (tmp_path / "other.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    assert load_tokenizer(str(tmp_path / "other.txt")).fingerprint != tokenizer.fingerprint
    assert vocabulary_fingerprint(tmp_path / "nothing") is None


def test_a_hub_name_is_resolved_through_its_cache(
    tmp_path: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hub's client itself, offline, on a cache laid out as it does."""
    from huggingface_hub import constants

    repository = tmp_path / "models--someone--small-bert"
    tokenizer.save(repository / "snapshots" / "abc")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("abc")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    assert load_tokenizer("someone/small-bert").fingerprint == tokenizer.fingerprint
    with pytest.raises(
        FileNotFoundError, match=r"no tokenizer at 'someone/other': no such file or folder, and the .* hub"
    ):
        load_tokenizer("someone/other")


@pytest.mark.parametrize("path", ["/no/such/folder", "no/such/folder/deep", "missing/vocab.txt", "tokenizer.json"])
def test_a_missing_path_is_no_hub_name(path: str) -> None:
    with pytest.raises(FileNotFoundError, match=f"no tokenizer at '{path}': no such file or folder. Give"):
        load_tokenizer(path)


def test_what_is_no_tokenizer_is_refused(tmp_path: Path, tokenizer_folder: Path) -> None:
    with pytest.raises(
        FileNotFoundError,
        match=r"no tokenizer\.json, vocab\.json, vocab\.txt, spiece\.model, .* or tokenizer\.model\. Give",
    ):
        load_tokenizer(str(tmp_path))
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ValueError, match=r"tokenizer\.json' is not a tokenizer"):
        load_tokenizer(str(tmp_path))
    record = json.loads((tokenizer_folder / "tokenizer.json").read_text())
    record["model"]["unk_token"] = "[UNKNOWN]"
    (tmp_path / "tokenizer.json").write_text(json.dumps(record))
    with pytest.raises(ValueError, match=r"tokenizer\.json' is not a tokenizer \(.*Missing \[UNK\]"):
        load_tokenizer(str(tmp_path))
    words = tmp_path / "words.txt"
    words.write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\nword\n")
    with pytest.raises(ValueError, match=r"words\.txt' has no mask_token \(\[MASK\]\)"):
        load_tokenizer(str(words))
    words.write_text("[PAD]\nword\nword\n")
    with pytest.raises(ValueError, match=r"line 3: token 'word' was already on line 2"):
        load_tokenizer(str(words))
    words.write_bytes(b"[PAD]\n\xff\xfe\n")
    with pytest.raises(ValueError, match=r"not UTF-8 at byte 6"):
        load_tokenizer(str(words))


def test_saved_configuration_is_what_transformers_expects(tokenizer_folder: Path) -> None:
    config = json.loads((tokenizer_folder / "tokenizer_config.json").read_text())
    assert config["do_lower_case"] is True
    assert config["tokenizer_class"] == "BertTokenizer"
    assert json.loads((tokenizer_folder / "special_tokens_map.json").read_text())["mask_token"] == "[MASK]"
