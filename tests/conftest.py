"""A toy language, corpus and teacher that every test may use; made once a session, in seconds."""

import random
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.launch import ROOT


@dataclass(frozen=True)
class Toy:
    """Prefixes and folders of the toy world."""

    train: Path
    heldout: Path
    teacher: Path
    """4 layers, width 32, random weights: good for exactness, useless as a language model."""


def sentences(seed: int, num_documents: int) -> str:
    """Documents of a small regular language, separated by blank lines."""
    draw = random.Random(seed)
    nouns = [f"{a}{b}" for a in ("ba", "do", "ki", "lu", "me", "po") for b in ("lan", "ret", "sim", "tok")]
    verbs = ("sees", "likes", "finds", "calls", "hears")
    documents = []
    for _ in range(num_documents):
        hero = draw.choice(nouns)
        lines = [f"the {hero} {draw.choice(verbs)} the {draw.choice(nouns)} ." for _ in range(draw.randint(1, 12))]
        documents.append("\n".join(lines))
    return "\n\n".join(documents) + "\n"


def prepare(*arguments: object) -> None:
    subprocess.run(
        [sys.executable, "-m", "data.prepare", *map(str, arguments)], cwd=ROOT, check=True, capture_output=True
    )


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Toy:
    from model.config import EncoderConfig
    from model.hub import save_model
    from model.student import make_random

    folder = tmp_path_factory.mktemp("toy")
    (folder / "train.txt").write_text(sentences(0, 400))
    (folder / "heldout.txt").write_text(sentences(1, 40))
    prepare("--input", folder / "train.txt", "--train_vocab", 120, "--workers", 1, "--output", folder / "train")
    tokenizer = folder / "train.tokenizer"
    prepare("--input", folder / "heldout.txt", "--tokenizer", tokenizer, "--workers", 1, "--output", folder / "heldout")
    vocab_size = len((tokenizer / "vocab.txt").read_text().splitlines())
    shape = EncoderConfig(
        vocab_size=vocab_size,
        hidden_size=32,
        num_layers=4,
        num_heads=2,
        intermediate_size=64,
        max_positions=64,
        initializer_range=0.1,
    )
    model = make_random(shape, seed=7)
    save_model(model, folder / "teacher", "bert", model.state_dict())
    for file in tokenizer.iterdir():
        (folder / "teacher" / file.name).write_bytes(file.read_bytes())
    return Toy(train=folder / "train", heldout=folder / "heldout", teacher=folder / "teacher")
