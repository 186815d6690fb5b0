"""Size and speed of models side by side: is each figure what it says, and is every model measured alike?"""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from torch import nn

from command_line import parse
from data.tokenizer import load_tokenizer
from evaluation.speed import main
from evaluation.speed_config import SpeedConfig
from evaluation.speed_figures import summarize
from evaluation.speed_models import PUBLISHED, load, weight_files
from evaluation.speed_texts import cut, encode, read_lines, read_pairs, spread
from evaluation.speed_timing import Setting, make_batches, measure, num_threads, settings
from model.config import EncoderConfig
from tests.conftest import Toy
from tests.launch import ROOT

FOLDER = Path(os.environ.get("DISTILLERY_DATA", ROOT / ".." / "shared" / "data"))
PAIRS = FOLDER / "glue/STS-B/sts-dev.csv"


@pytest.fixture(scope="module")
def student(toy: Toy, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A DistilBERT of half the toy teacher's depth with a classification head, and the teacher's vocabulary."""
    folder = tmp_path_factory.mktemp("student")
    vocab_size = len((toy.teacher / "vocab.txt").read_text().splitlines())
    config = transformers.DistilBertConfig(
        vocab_size=vocab_size, dim=32, n_layers=2, n_heads=2, hidden_dim=64, max_position_embeddings=64, num_labels=1
    )
    transformers.DistilBertForSequenceClassification(config).save_pretrained(folder)
    return folder


def rows(markdown: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in markdown.splitlines() if line[:1] == "|"]


def test_two_folders_are_measured_and_table_and_json_written(
    toy: Toy, student: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = tmp_path / "lines.txt"
    lines.write_text("the balan sees the doret .\n\nthe doret .\nthe kisim likes the balan .\n")
    arguments = ["--models", f"teacher={toy.teacher}", f"student={student}", "--text", str(lines), "--rounds", "3"]
    arguments += ["--threads", "1", "--batch_size", "2", "--turn", "2"]
    results, figures = tmp_path / "RESULTS.md", tmp_path / "figures.json"
    results.write_text("# Measured\n")
    config = parse(SpeedConfig, [*arguments, "--append", str(results), "--json", str(figures)], "")
    assert main(config, "python -m evaluation.speed as in a test") == 0
    printed = capsys.readouterr().out
    assert results.read_text() == f"# Measured\n\n{printed}"
    assert "    python -m evaluation.speed as in a test\n" in printed
    assert "3 of the 3 texts of lines.txt" in printed
    assert "The heads differ (MaskedLM, SequenceClassification)" in printed
    header, _, first, second = rows(printed)
    ways = ["fp32, 1 thread: ms", "bf16, 1 thread: ms", "fp32, 1 thread: texts/s at 2", "bf16, 1 thread: texts/s at 2"]
    assert header[-4:] == ways
    assert first[:2] == ["teacher", "BertForMaskedLM"]
    assert second[:2] == ["student", "DistilBertForSequenceClassification"]
    assert all(cell.endswith(", 1.00x") for cell in first[-4:])
    content = json.loads(figures.read_text())
    for name, folder in (("teacher", toy.teacher), ("student", student)):
        sizes = content["models"][name]
        assert sizes["weights_bytes"] == (folder / "model.safetensors").stat().st_size
        assert sizes["folder_bytes"] == sum(file.stat().st_size for file in folder.iterdir())
        assert (
            5e7
            < sizes["resident_bytes"]["imported"]
            <= sizes["resident_bytes"]["loaded"]
            <= sizes["resident_bytes"]["ran"]
        )
    for way, label in zip(content["settings"], ways, strict=True):
        figure = way["models"]["student"]
        assert f"{figure['median']:.4g} " in second[header.index(label)]
        assert 0 < figure["lowest"] <= figure["median"] <= figure["highest"]


@pytest.mark.parametrize(
    ("name", "encoder", "with_our_head"), [("bert-base", 109.5, 109.5), ("distilbert", 66.4, 67.0)]
)
def test_published_shapes_have_the_published_parameters(name: str, encoder: float, with_our_head: float) -> None:
    with torch.device("meta"):
        model = load(name)
    assert round(model.sizes.encoder_parameters / 1e6, 1) == encoder
    assert model.sizes.encoder_parameters == {"bert-base": 109_482_240, "distilbert": 66_362_880}[name]
    assert round(model.config.num_parameters / 1e6, 1) == with_our_head
    assert model.sizes.weights_bytes == 4 * model.sizes.parameters
    assert model.config == EncoderConfig(vocab_size=30522, num_layers={"bert-base": 12, "distilbert": 6}[name])


def test_a_tied_decoder_counts_once_and_a_pooler_counts_as_encoder(toy: Toy) -> None:
    sizes = load(str(toy.teacher)).sizes
    theirs = transformers.AutoModelForMaskedLM.from_pretrained(toy.teacher)
    vocab_size, width = theirs.config.vocab_size, theirs.config.hidden_size
    weights = {p.data_ptr(): p.numel() for p in theirs.parameters()}
    assert sizes.parameters == sum(weights.values())
    head = width * width + 3 * width + vocab_size
    assert sizes.encoder_parameters == sizes.parameters - head + (width * width + width)


def test_weights_in_shards_are_all_counted_and_copies_are_not(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors.index.json").write_text('{"weight_map": {"a": "2.st", "b": "1.st", "c": "2.st"}}')
    (tmp_path / "pytorch_model.bin").write_text("the same again")
    assert weight_files(tmp_path) == [tmp_path / "1.st", tmp_path / "2.st"]


class Recorded(nn.Module):
    """Notes who ran, with how many threads, on how many texts."""

    def __init__(self, name: str, runs: list[tuple[str, int, tuple[int, ...]]]) -> None:
        super().__init__()
        self.name, self.runs = name, runs

    def __deepcopy__(self, memo: dict) -> "Recorded":
        return self

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> None:
        assert torch.is_inference_mode_enabled()
        assert attention_mask.sum() == (input_ids != 0).sum()
        self.runs.append((self.name, torch.get_num_threads(), tuple(input_ids.shape)))


def test_models_take_turns_and_threads_are_set_and_restored() -> None:
    runs: list[tuple[str, int, tuple[int, ...]]] = []
    models = {name: Recorded(name, runs) for name in "ab"}
    before = torch.get_num_threads()
    ways = [Setting("cpu", "fp32", threads, 1) for threads in (1, 3)]
    seconds = measure(models, [[5, 6]] * 4, ways, rounds=2, turn=2, pad_id=0)
    assert torch.get_num_threads() == before
    turns = "aaabbb" + "bbbaaa"  # two texts each, the first of them once more before; then the other begins
    expected = [(1, "ab" + turns), (3, "ab" + turns), (1, turns[6:] + turns[:6]), (3, turns[6:] + turns[:6])]
    assert runs == [(name, threads, (1, 2)) for threads, names in expected for name in names]
    assert all(
        [len(took) for took in rounds] == [4, 4] for by_model in seconds.values() for rounds in by_model.values()
    )


def test_all_threads_are_those_of_torch_and_count_once() -> None:
    with num_threads(2):
        assert [way.threads for way in settings(["fp32"], [1, 0, 2], 1) if way.device == "cpu"] == [1, 2]
    with num_threads(1):
        assert [way.threads for way in settings(["fp32"], [1, 0], 1) if way.device == "cpu"] == [1]


def test_batches_are_padded_to_their_longest() -> None:
    batches = make_batches([[5, 6, 7], [8], [9]], 2, 1, "cpu")
    assert [batch.input_ids.tolist() for batch in batches] == [[[5, 6, 7], [8, 1, 1]], [[9]]]
    assert batches[0].attention_mask.tolist() == [[1, 1, 1], [1, 0, 0]]


def test_figures_are_medians_over_rounds_and_ratios_within_a_round() -> None:
    one, many = Setting("cpu", "fp32", 1, 1), Setting("cpu", "fp32", 1, 2)
    first = [[0.2, 0.4, 0.6], [2.0, 4.0, 6.0], [0.2, 0.4, 0.6]]  # a slow minute in round 2, for both
    second = [[0.1, 0.2, 0.3], [1.0, 2.0, 3.0], [0.1, 0.1, 0.3]]
    rate = [[1.0, 0.5], [2.0, 1.0], [1.0, 0.5]]
    found = summarize({one: {"a": first, "b": second}, many: {"a": rate, "b": [r[::-1] for r in rate]}}, 3, 30)
    b = found[one]["b"]
    assert (b.median, b.lowest, b.highest, b.speed_up) == pytest.approx((200, 100, 2000, 2.0))
    assert (found[one]["a"].p10, found[one]["a"].p90) == pytest.approx(tuple(np.percentile(first[0], (10, 90)) * 1e3))
    assert (found[one]["a"].pass_seconds, b.pass_seconds) == pytest.approx((12, 6))
    assert (found[many]["a"].median, found[many]["b"].speed_up) == pytest.approx((2, 1))  # 3 texts in 1.5 seconds


@pytest.mark.parametrize("family", ["bert", "roberta"])
@pytest.mark.parametrize("max_length", [512, 24])
def test_real_lengths_equal_those_of_transformers(family: str, max_length: int) -> None:
    if not PAIRS.is_file():
        pytest.skip(f"no STS-B at {PAIRS}; set DISTILLERY_DATA to the folder with real data")
    pairs = read_pairs(PAIRS)
    assert len(pairs) == 1500
    sample = [pairs[i] for i in spread(len(pairs), 150)]
    theirs: transformers.PreTrainedTokenizerBase
    if family == "bert":
        path = FOLDER / "vocab/bert-base-uncased-vocab.txt"
        theirs = transformers.BertTokenizer(str(path))
    else:
        path = FOLDER / "vocab/roberta-base"
        theirs = transformers.RobertaTokenizer.from_pretrained(str(path))
    expected = theirs([a for a, _ in sample], [b for _, b in sample], truncation=True, max_length=max_length)
    assert encode(sample, load_tokenizer(str(path)), max_length) == expected["input_ids"]


def test_single_texts_and_samples(tmp_path: Path) -> None:
    path = tmp_path / "lines.txt"
    path.write_text("one\n\n  two \u2028 words\n", encoding="utf-8")
    assert read_lines(path) == [("one",), ("two \u2028 words",)]
    assert cut([[1, 2, 3]], 2) == [[1, 2]]
    assert spread(10, 4) == [0, 2, 5, 7]
    assert spread(3, 0) == spread(3, 9) == [0, 1, 2]


def refusal(capsys: pytest.CaptureFixture[str], **options: object) -> str:
    assert main(SpeedConfig(**options), "") == 2  # type: ignore[arg-type]
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    assert printed.err.startswith("error: ")
    return printed.err


def test_what_is_no_model_is_refused_in_one_line(toy: Toy, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "not a folder" in refusal(capsys, models=("nowhere",))
    assert "no config.json" in refusal(capsys, models=(str(tmp_path),))
    config = json.loads((toy.teacher / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert "no weights in" in refusal(capsys, models=(str(tmp_path),))
    (tmp_path / "model.safetensors").write_bytes(b"no tensors in here")
    assert "cannot load the weights" in refusal(capsys, models=(str(tmp_path),))
    (tmp_path / "model.safetensors").write_bytes((toy.teacher / "model.safetensors").read_bytes())
    (tmp_path / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 5}))
    assert "lacks 16 weights that its config.json promises" in refusal(capsys, models=(str(tmp_path),))
    (tmp_path / "config.json").write_text(json.dumps(config | {"architectures": ["BertForMultipleChoice"]}))
    assert "no speed of BertForMultipleChoice" in refusal(capsys, models=(str(tmp_path),))
    twice = (str(toy.teacher), str(toy.teacher))
    assert "there is a 'teacher' already" in refusal(capsys, models=twice)


def test_texts_that_cannot_be_measured_are_refused(
    toy: Toy, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    models, path = (str(toy.teacher),), tmp_path / "texts"
    path.write_text("\n \n")
    assert "has no sentences" in refusal(capsys, models=models, text=str(path))
    assert "line 1: 1 columns" in refusal(capsys, models=models, data=str(path))
    path.write_text("")
    assert "has no sentences" in refusal(capsys, models=models, data=str(path))
    path.write_bytes(b"\xff\xfe")
    assert "is not UTF-8" in refusal(capsys, models=models, text=str(path))
    assert "No such file" in refusal(capsys, models=models, text=str(tmp_path / "absent"))
    path.write_text("a text\n")
    assert "there is no tokenizer" in refusal(capsys, models=models, text=str(path), tokenizer=str(tmp_path / "absent"))


@pytest.mark.parametrize(
    "options",
    [
        {"models": ()},
        {"data": "a", "text": "b"},
        {"rounds": 0},
        {"sentences": -1},
        {"threads": (-1,)},
        {"precisions": ()},
        {"json": "/no/such/folder/x.json"},
    ],
)
def test_flags_that_make_no_measurement_are_refused(options: dict) -> None:
    with pytest.raises(ValueError, match="--"):
        SpeedConfig(**{"models": tuple(PUBLISHED), **options})


def test_the_command_refuses_bad_flags_before_it_loads_torch() -> None:
    check = (
        "import runpy, sys\n"
        "sys.argv = ['speed', '--models', 'bert-base', '--rounds', '0']\n"
        "try: runpy.run_module('evaluation.speed', run_name='__main__')\n"
        "finally: assert 'torch' not in sys.modules\n"
    )
    process = subprocess.run([sys.executable, "-c", check], cwd=ROOT, capture_output=True, text=True)
    assert process.returncode == 2
    assert "--rounds 0: at least 1 is needed" in process.stderr
