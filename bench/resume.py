"""Seconds from the command to the first update of a run that is resumed, for a corpus of N documents.

    python -m bench.resume --documents 200000000 --folder /scratch

A BERT-base teacher, a DistilBERT-size student and its checkpoint, two ranks under torchrun; an update has one short
micro-batch a rank, so that what is timed is the start. Everything is written into --folder and removed.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch

from bench.open_corpus import write_corpus
from bench.workload import VOCAB_SIZE
from data.sidecar import read_sidecar, write_sidecar
from data.tokenizer import Tokenizer, wordpiece
from model.config import EncoderConfig
from model.hub import save_model
from model.kernels.choice import choose_kernels
from model.student import make_random

_SPECIAL = {0: "[PAD]", 100: "[UNK]", 101: "[CLS]", 102: "[SEP]", 103: "[MASK]"}


def invented_tokenizer() -> Tokenizer:
    """BERT's number of words, its special ids, and no sense."""
    words = {_SPECIAL.get(number, f"w{number}"): number for number in range(VOCAB_SIZE)}
    return wordpiece(words, {}, {}, "invented")


def write_inputs(folder: Path, documents: int) -> list[str]:
    """The flags of train.py for a corpus, a teacher and a configuration in `folder`."""
    prefix, tokenizer = folder / "corpus", invented_tokenizer()
    write_corpus(prefix, documents)
    tokenizer.save(Path(f"{prefix}.tokenizer"))
    sidecar = read_sidecar(prefix)
    assert sidecar
    write_sidecar(prefix, replace(sidecar, tokenizer=replace(sidecar.tokenizer, fingerprint=tokenizer.fingerprint)))
    shape, device = EncoderConfig(vocab_size=VOCAB_SIZE, num_layers=12), torch.device("cpu")
    kernels, _ = choose_kernels("auto", "auto", shape, device, torch.bfloat16, False)
    teacher = make_random(shape, seed=0, kernels=kernels)
    save_model(teacher, folder / "teacher", "bert", teacher.state_dict())
    config = json.loads(Path("ds_configs/zero2_cpu.json").read_text())
    config |= {"train_batch_size": 4, "train_micro_batch_size_per_gpu": 2}
    (folder / "ds.json").write_text(json.dumps(config))
    flags = {"teacher": folder / "teacher", "data": prefix, "ds_config": folder / "ds.json", "output": folder / "run"}
    more = {"max_length": 128, "max_updates": 1000, "log_every": 1, "checkpoint_every": 1}
    return [text for name, value in (flags | more).items() for text in (f"--{name}", str(value))]


def start(flags: list[str], until: str) -> dict[str, float]:
    """Seconds until lines with these beginnings appeared, the last of which ends the run with a signal."""
    seen: dict[str, float] = {}
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "train.py", *flags]
    started = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            for name in ("resumed from", "run folder", "update "):
                if line.startswith(name) and name not in seen and not line.startswith("update: "):
                    seen[name] = time.perf_counter() - started
            if line.startswith(until):
                process.terminate()
            if line.startswith("error"):
                print(line, file=sys.stderr)
    return seen


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        flags = [*write_inputs(Path(name), options.documents), "--no_check_teacher", "--resume"]
        first = start(flags, until="checkpoint of update")
        for _ in range(2):
            again = start(flags, until="update ")
            print(
                f"{options.documents:,} documents: first start ready after {first['run folder']:.1f} s; resumed after "
                f"{again['resumed from']:.1f} s, first update over after {again['update ']:.1f} s"
            )


if __name__ == "__main__":
    main()
