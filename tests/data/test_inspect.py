"""What the command prints, against the corpus and the batches that training makes of it."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from data import frequencies
from data.batch import make_batch
from data.batching import Blend, Corpus, UpdateWindows
from data.frequencies import sampled_frequencies, stored_frequencies
from data.indexed_dataset import IndexedDataset
from data.inspect import main
from data.sidecar import SplitFacts, read_sidecar, write_sidecar
from tests.data.helpers import UNK, VOCAB_SIZE, random_documents, small_tokenizer, write_corpus
from tests.launch import ROOT

WORDS = {f"word{number}": number + 5 for number in range(VOCAB_SIZE - 5)}
SPECIAL = {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "[MASK]": 4}


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    """60 documents, of which one has an unknown token and one no tokens at all."""
    documents = random_documents(60, longest=90)
    documents[4][0] = UNK
    documents[9] = np.empty(0, dtype=np.int64)
    write_corpus(tmp_path / "x", documents)
    return tmp_path / "x"


def shown(capsys: pytest.CaptureFixture, *arguments: object) -> str:
    assert main([str(argument) for argument in arguments]) == 0
    written: str = capsys.readouterr().out
    assert max(map(len, written.splitlines())) <= 100
    return written


def sequences(written: str) -> dict[int, str]:
    """Number -> text of the sequences shown, each on one line."""
    parts = re.split(r"^sequence (\d+): ", written, flags=re.MULTILINE)
    return {int(number): " ".join(text.split()) for number, text in zip(parts[1::2], parts[2::2], strict=True)}


def ids(text: str, side: int) -> list[int]:
    """Token ids of a sequence's text, before (0) or after (1) it was masked."""
    words = text[text.index("[CLS]") :].split()
    sides = [re.fullmatch(r"\[(\w+)(?:=|→(\S+))\]", word) for word in words]
    plain = [
        (match[2] or match[1] if side else match[1]) if match and (match[2] or word.endswith("=]")) else word
        for word, match in zip(words, sides, strict=True)
    ]
    return [(WORDS | SPECIAL)[word] for word in plain]


def test_sequences_are_those_of_training_with_their_masks(prefix: Path, capsys: pytest.CaptureFixture) -> None:
    """The first ones of an epoch of the shuffled stream, token for token what teacher and student read."""
    corpus = Corpus.open(prefix, max_length=32)
    windows = UpdateWindows(Blend([corpus]), sequences_per_update=corpus.num_sequences, seed=5, mask_probability=0.3)
    window = windows.window(2)  # the third epoch
    first, epochs = window.sequence_ids[:6], window.epochs[:6]
    assert epochs.tolist() == [2] * 6
    flags = ["--max_length", 32, "--seed", 5, "--epoch", 2, "--mask_probability", 0.3, "--mask_smoothing", 1.0]
    found = sequences(shown(capsys, prefix, "--sequences", 6, *flags))
    assert list(found) == first.tolist()
    batch = make_batch(corpus, corpus.masker(seed=5, probability=0.3, smoothing=1.0), first, epochs)
    truth = batch.token_ids.clone()
    truth[batch.masked_positions] = batch.masked_labels
    bounds = batch.cu_seqlens.tolist()
    for text, start, end in zip(found.values(), bounds[:-1], bounds[1:], strict=True):
        assert ids(text, side=1) == batch.token_ids[start:end].tolist()
        assert ids(text, side=0) == truth[start:end].tolist()
        masked = int(((batch.masked_positions >= start) & (batch.masked_positions < end)).sum())
        assert f"{masked} of {end - start} to predict" in text
        assert text.count("→") + text.count("=]") == masked


def test_sequences_and_documents_are_shown_by_number(prefix: Path, capsys: pytest.CaptureFixture) -> None:
    corpus = Corpus.open(prefix, max_length=32)
    starts, lengths = corpus.dataset.index.locate(np.arange(60))
    long = int(np.flatnonzero(lengths > 60)[0])
    nth = int(sum(-(-length // 30) for length in lengths[:long].tolist()))
    found = sequences(shown(capsys, prefix, "--max_length", 32, "--sequence", 0, nth + 1))
    assert list(found) == [0, nth + 1]
    byte = 2 * (starts[long] + 30)
    assert found[nth + 1].startswith(f"document {long}, tokens 30 to 59 of {lengths[long]}, at byte {byte} of the .bin")
    written = shown(capsys, prefix, "--max_length", 32, "--document", long, 9, "--sequences", 2)
    assert list(sequences(written)) == [nth, nth + 1]
    assert "document 9 has no tokens" in written
    for flag, number, message in (("--sequence", 10**6, "no sequence 1000000"), ("--document", 60, "no document 60")):
        assert main([str(prefix), flag, str(number)]) == 2
        assert message in capsys.readouterr().err


def test_counts_and_shares_are_those_of_the_corpus(prefix: Path, capsys: pytest.CaptureFixture) -> None:
    dataset = IndexedDataset(prefix)
    sidecar = read_sidecar(prefix)
    assert sidecar is not None
    changed = {"dropped": {"duplicate": 4, "empty": 0}, "split": SplitFacts(part="heldout", share=0.05)}
    write_sidecar(prefix, type(sidecar)(**{**vars(sidecar), **changed}))
    sizes = dataset.index.locate(np.arange(60))[1]
    written = shown(capsys, prefix, "--max_length", 32, "--frequent", 3, "--verify")
    lines = [" ".join(line.split()) for line in written.splitlines()]
    assert "documents 60" in lines
    assert f"tokens {dataset.num_tokens:,}, stored as uint16" in lines
    median, ninetieth = (int(np.sort(sizes)[rank]) for rank in (29, 53))
    means = f"mean {sizes.mean():.1f}, median {median}, p90 {ninetieth}, longest {sizes.max()}"
    assert f"tokens per document {means}" in lines
    assert "dropped documents 4 duplicate" in lines
    assert "split heldout: the 5.000% of the documents that are held out" in lines
    assert f"inputs {sidecar.inputs[0]}" in lines
    full = int((sizes // 30).sum())
    total = int((-(-sizes // 30)).sum())
    assert f"{full / total:.1%} of the sequences are full." in written
    counts = np.bincount(dataset.tokens, minlength=VOCAB_SIZE)
    top = int(counts.argmax())
    assert any(line.startswith(f"{top} word{top - 5} {counts[top]} ") for line in lines)
    assert f"{(counts > 0).sum()} of {VOCAB_SIZE} tokens occur" in written
    assert "Unknown ([UNK]): 1, " in written
    assert " is intact" in lines[0]


def test_coverage_and_sampling(prefix: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = IndexedDataset(prefix)
    exact = stored_frequencies(dataset)
    falling = sorted(exact.counts.tolist(), reverse=True)
    for share in (0.5, 0.9, 0.99):
        number = exact.tokens_covering(share)
        assert sum(falling[: number - 1]) < share * dataset.num_tokens <= sum(falling[:number])
    assert np.array_equal(sampled_frequencies(dataset, VOCAB_SIZE).counts, exact.counts)
    assert sampled_frequencies(dataset, 60).outside == exact.counts[60:].sum()
    monkeypatch.setattr(frequencies, "_TOKENS_AT_ONCE", 16)
    monkeypatch.setattr(frequencies, "_MOST_BLOCKS", 8)
    sampled = sampled_frequencies(dataset, VOCAB_SIZE)
    assert sampled.counted == sampled.counts.sum() == 8 * 16


def test_a_corpus_without_its_facts(prefix: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """Counts and lengths are there; tokens are ids, or words where a tokenizer is given."""
    counted = shown(capsys, prefix, "--sequences", 0)
    Path(f"{prefix}.json").unlink()
    written = shown(capsys, prefix, "--sequence", 0)
    tokens = IndexedDataset(prefix).tokens
    assert f"  {tokens[0]} {tokens[1]} " in written
    written = shown(capsys, prefix, "--sequence", 0, "--tokenizer", f"{prefix}.tokenizer")
    assert f"  word{tokens[0] - 5} word{tokens[1] - 5} " in written
    written = shown(capsys, prefix)
    assert "python -m data.adopt" in written
    histogram = counted[counted.index("documents by tokens") : counted.index("the most frequent")]
    assert histogram in written


def test_a_picture_is_drawn(prefix: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    from matplotlib import image

    assert "drawn in" in shown(capsys, prefix, "--histogram", tmp_path / "x.png")
    pixels = image.imread(tmp_path / "x.png")
    assert pixels.shape[0] > 300
    assert len(np.unique(pixels.reshape(-1, pixels.shape[2]), axis=0)) > 10  # not a blank page
    assert main([str(prefix), "--histogram", str(tmp_path / "x.jpg")]) == 2
    write_corpus(tmp_path / "empty", [np.empty(0, dtype=np.int64)])
    assert "documents 1" in " ".join(shown(capsys, tmp_path / "empty").split())
    assert main([str(tmp_path / "empty"), "--histogram", str(tmp_path / "y.png")]) == 2
    assert "there is nothing to draw" in capsys.readouterr().err


def test_a_corpus_cannot_control_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    write_corpus(tmp_path / "x", random_documents(3, longest=9))
    Path(tmp_path / "x.json").unlink()
    tokenizer = small_tokenizer()
    tokenizer.save(tmp_path / "t")
    (tmp_path / "t" / "tokenizer.json").unlink()
    vocabulary = tmp_path / "t" / "vocab.txt"
    vocabulary.write_text(vocabulary.read_text().replace("word", "\x1b[2J"))
    written = shown(capsys, tmp_path / "x", "--tokenizer", tmp_path / "t")
    assert "\\x1b[2J" in written
    assert "\x1b" not in written


def test_damage_and_bad_flags_are_one_line(prefix: Path, capsys: pytest.CaptureFixture) -> None:
    for arguments, message in (
        ([prefix, "--max_length", 2], "--max_length 2"),
        ([prefix, "--shingle", 0], "--shingle 0"),
        ([prefix, "--sequences", -1], "--sequences -1"),
        ([prefix, "--tokenizer", "t"], "has its own"),
        (["nowhere", "--verify"], "no corpus at 'nowhere'"),
    ):
        assert main([str(argument) for argument in arguments]) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ")
        assert message in error
        assert len(error.splitlines()) == 1
    content = bytearray(Path(f"{prefix}.bin").read_bytes())
    content[40] ^= 1
    Path(f"{prefix}.bin").write_bytes(content)
    assert main([str(prefix), "--verify"]) == 2
    assert "sha256" in capsys.readouterr().err


def test_a_closed_pipe_ends_quietly(prefix: Path) -> None:
    """More is printed than a pipe holds."""
    command = f"{sys.executable} -m data.inspect {prefix} --sequences 2000 --max_length 3"
    script = f"{command} | head -n 1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines() == [str(prefix), "0"]
    assert done.stderr == ""


@pytest.mark.parametrize("module", ["inspect", "adopt"])
def test_help_is_instant_and_needs_nothing_heavy(module: str) -> None:
    script = f"import sys; from data.{module} import main\ntry: main(['--help'])\nfinally: print(sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert "--tokenizer" in done.stdout
    for heavy in ("torch", "tokenizers", "numpy", "matplotlib"):
        assert f"'{heavy}'" not in done.stdout
