"""What people use instead of `data.prepare`, each as a program of its own: `python -m bench.prepare_sides SIDE ...`.

Both read the same compressed JSON lines, tokenize with the same tokenizer without special tokens, and write all token ids.
"""

import argparse
import json
import lzma
import os
from pathlib import Path

import numpy as np

BATCH = 1000
"""Documents tokenized at once: the default of datasets.map."""


def datasets_map(inputs: list[str], tokenizer_folder: str, output: Path, processes: int) -> None:
    """`datasets.load_dataset` and `map` with transformers' fast tokenizer, as the tutorials do; Arrow files come out."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    import datasets
    from transformers import AutoTokenizer

    datasets.disable_progress_bars()
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)
    options = {"add_special_tokens": False, "return_attention_mask": False, "return_token_type_ids": False}
    loaded = datasets.load_dataset(
        "json", data_files=inputs, split="train", cache_dir=str(output), num_proc=min(processes, len(inputs))
    )
    loaded.map(
        lambda batch: {"input_ids": tokenizer(batch["text"], verbose=False, **options)["input_ids"]},
        batched=True,
        batch_size=BATCH,
        num_proc=processes if processes > 1 else None,
        remove_columns=loaded.column_names,
        cache_file_name=str(output / "tokenized.arrow"),
    )


def plain_loop(inputs: list[str], tokenizer_folder: str, output: Path, processes: int) -> None:
    """A loop with the `tokenizers` library, whose threads are the processes; a .bin of uint16 comes out."""
    os.environ["TOKENIZERS_PARALLELISM"] = "true" if processes > 1 else "false"
    os.environ["RAYON_NUM_THREADS"] = str(processes)
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(f"{tokenizer_folder}/tokenizer.json")
    tokenizer.no_truncation()
    batch: list[str] = []
    with (output / "plain.bin").open("wb") as file:

        def write() -> None:
            for encoding in tokenizer.encode_batch(batch, add_special_tokens=False):
                file.write(np.array(encoding.ids, dtype=np.uint16).data)
            batch.clear()

        for name in inputs:
            with lzma.open(name, "rt", encoding="utf-8") as lines:
                for line in lines:
                    batch.append(json.loads(line)["text"])
                    if len(batch) == BATCH:
                        write()
        write()


SIDES = {"datasets_map": datasets_map, "plain_loop": plain_loop}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("side", choices=SIDES)
    parser.add_argument("--input", nargs="+", required=True)
    parser.add_argument("--tokenizer", required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--processes", type=int, default=1)
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    SIDES[options.side](options.input, options.tokenizer, options.output, options.processes)


if __name__ == "__main__":
    main()
