"""The page of a run folder's files. Each must be named in the file that writes it, or the page is not written."""

from docs.generator.commands import ROOT
from docs.generator.markdown import NOTE, cell, code, table

FILES = (
    ("config.json", "training/run_folder.py", "flags, DeepSpeed JSON, number of ranks and versions of the first start"),
    ("log.txt", "training/run_folder.py", "what the run said"),
    ("metrics.jsonl", "training/run_folder.py", "the figures, a line each: [fields](metrics.md)"),
    ("tensorboard", "training/run_folder.py", "the same for TensorBoard"),
    (
        "checkpoints",
        "trainer.py",
        "`update-NNNNNNNN/` with `manifest.json`, `state.json` and a `rank_NNN.safetensors` a rank",
    ),
    (
        "checkpoints/latest.json",
        "training/checkpoint.py",
        "which is the newest, for scripts; loading looks at the folders",
    ),
    ("student", "trainer.py", "the result: a Hugging Face folder, written after the last update"),
    ("attempts.jsonl", "training/attempts.py", "each start and how it ended, with its [exit code](exit-codes.md)"),
    ("lock", "training/run_lock.py", "host and process of rank 0, while it runs"),
    ("heartbeats", "training/watchdog.py", "a file a rank: update and phase that it was last seen in"),
    ("stacks", "training/watchdog.py", "a file a rank: where it stood, when nothing moved for `--hang_timeout`"),
    ("incidents", "incidents.py", "a file for each update that was refused: rank, micro-batch, sequences"),
    ("rewinds.json", "run_state.py", "sequences left out after going back (`--rewinds`)"),
    (
        "micro_batch.json",
        "training/out_of_memory.py",
        "the micro-batch that fits; remove it to try the larger one again",
    ),
    ("profile", "trainer.py", "traces of `--profile`"),
    (
        "requeues.jsonl",
        "launcher/slurm.sbatch",
        "ends before their time under SLURM, and whether each left a new checkpoint",
    ),
)
"""Name, the file that writes it, meaning."""


def run_folder() -> str:
    """docs/reference/run-folder.md."""
    for name, source, _ in FILES:
        text = (ROOT / source).read_text(encoding="utf-8")
        assert name.rpartition("/")[2] in text, (
            f"{source} no longer writes {name}: change docs/generator/run_folder_page.py"
        )
    rows = [(code(name), cell(meaning), f"[{source}](../../{source})") for name, source, meaning in FILES]
    return _PAGE.format(note=NOTE, table=table(("in runs/NAME", "", "written by"), rows))


_PAGE = """{note}# A run folder

What `train.py --output runs/NAME` leaves. Rank 0 writes all of it but the other ranks' heartbeats, stacks and parts of a
checkpoint. What ends in `.partial` is being written, or was left by a kill, and is never read.

{table}"""
