"""The recipes, as they stand: refused input, and each of them for real in small, from text to a student."""

import json
import subprocess
from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoModelForMaskedLM, AutoTokenizer

from data.tokenizer import load_tokenizer
from data.train_tokenizer import train_wordpiece
from model.config import EncoderConfig
from model.hub import save_model
from model.student import make_random
from tests.conftest import sentences
from tests.launch import ROOT, ds_config, free_port, run

FAMILY = {"distilbert": "bert", "distilroberta": "roberta", "distilmbert": "bert"}
STUDENT = {
    "distilbert": "DistilBertForMaskedLM",
    "distilroberta": "RobertaForMaskedLM",
    "distilmbert": "DistilBertForMaskedLM",
}
FOREIGN = ["Die Größe der Stadt Zürich .", "東京は日本の首都です 。", "Москва слезам не верит ."]


def save_byte_level_bpe(folder: Path, texts: list[str], vocab_size: int) -> None:
    """A tokenizer of RoBERTa's kind: <s>, <pad>, </s>, <unk> first and <mask> last."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    backend.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=vocab_size, special_tokens=special, initial_alphabet=alphabet)
    )
    backend.add_special_tokens(["<mask>"])
    backend.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    folder.mkdir(parents=True, exist_ok=True)
    backend.save(str(folder / "tokenizer.json"))


def make_teacher(folder: Path, recipe: str, text: str) -> None:
    """4 layers of random weights in the layout of the recipe's teacher, and a tokenizer of its kind."""
    if FAMILY[recipe] == "roberta":
        save_byte_level_bpe(folder, text.splitlines(), 400)
    else:
        train_wordpiece(text.splitlines(), 150, lowercase=recipe == "distilbert").save(folder)
    tokenizer = load_tokenizer(str(folder))
    shape = EncoderConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_size=32,
        num_layers=4,
        num_heads=2,
        intermediate_size=64,
        max_positions=64,
        layer_norm_eps=1e-5 if FAMILY[recipe] == "roberta" else 1e-12,
    )
    model = make_random(shape, seed=1)
    ids = {"pad": tokenizer.pad_id, "cls": tokenizer.cls_id, "sep": tokenizer.sep_id}
    save_model(model, folder, FAMILY[recipe], model.state_dict(), ids)


def start(recipe: str, folder: Path, *more: object, **environment: object) -> subprocess.CompletedProcess[str]:
    small = {
        "TEXT": folder / "*.txt",
        "CORPUS": folder / "corpus",
        "OUTPUT": folder / "run",
        "GPUS": 2,
        "TEACHER": folder / "teacher",
        "DS_CONFIG": folder / "ds.json",
        "MAX_LENGTH": 40,
        "MAX_UPDATES": 6,
        "MASTER_PORT": free_port(),
    }
    variables = {name: str(value) for name, value in (small | environment).items()}
    return run([ROOT / f"launcher/recipes/{recipe}.sh", *more], **variables)


@pytest.mark.parametrize("recipe", FAMILY)
def test_text_that_is_not_there_ends_it_with_the_exit_code_of_prepare(tmp_path: Path, recipe: str) -> None:
    result = start(recipe, tmp_path, TEXT=tmp_path / "none-*.jsonl.xz", TEACHER=tmp_path)
    assert result.returncode == 2, result.stdout
    assert "$ python -m data.prepare --input" in result.stdout
    assert f"{tmp_path}/none-*.jsonl.xz" in result.stdout.splitlines()[-1]
    assert "deepspeed" not in result.stdout
    (tmp_path / "run/student").mkdir(parents=True)
    again = start(recipe, tmp_path)
    assert (again.returncode, again.stdout) == (0, f"{tmp_path}/run/student is there already\n")


@pytest.mark.slow
@pytest.mark.parametrize("recipe", FAMILY)
def test_in_small(tmp_path: Path, recipe: str) -> None:
    """Stopped after a second, which its exit code tells, and started again; the student is what its recipe is named for."""
    text = sentences(0, 200)
    if recipe == "distilmbert":
        text += "\n\n".join(FOREIGN * 20)
    for name, part in (("a", text[: len(text) // 2]), ("b", text[len(text) // 2 :])):
        (tmp_path / f"{name}.txt").write_text(part, encoding="utf-8")
    (tmp_path / "heldout").mkdir()
    (tmp_path / "heldout/c.txt").write_text(sentences(1, 40))
    make_teacher(tmp_path / "teacher", recipe, text)
    ds_config(tmp_path / "ds.json", bf16={"enabled": True})
    more = {"HELDOUT": tmp_path / "heldout/*.txt"}
    stopped = start(recipe, tmp_path, "--no_check_teacher", "--stop_after", "00:00:01", **more)
    assert stopped.returncode == 75, stopped.stdout[-3000:]
    result = start(recipe, tmp_path, "--no_check_teacher", "--log_every", 1, **more)
    assert result.returncode == 0, result.stdout[-3000:]
    assert "data.prepare" not in result.stdout
    student, info = AutoModelForMaskedLM.from_pretrained(tmp_path / "run/student", output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys")), info
    assert type(student).__name__ == STUDENT[recipe]
    tokens = AutoTokenizer.from_pretrained(tmp_path / "run/student")
    ids = tokens("the bolan sees")["input_ids"]
    assert (ids[0], ids[-1]) == (tokens.cls_token_id, tokens.sep_token_id)
    assert student.config.pad_token_id == tokens.pad_token_id
    flags = json.loads((tmp_path / "run/config.json").read_text())["flags"]
    assert (flags["temperature"], flags["weight_distillation"], flags["mask_smoothing"]) == (2.0, 5.0, 0.7)
    assert (flags["max_updates"], flags["eval_data"]) == (6, str(tmp_path / "corpus/heldout"))
