"""How a run is run: where it writes, how long it lasts, what it reports.

Precision, ZeRO stage, batch sizes, clipping, optimizer and learning rate belong to the DeepSpeed JSON and have no flag.
"""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Where a run writes, how long it lasts and what it reports."""

    ds_config: str
    """DeepSpeed JSON, for example ds_configs/zero2.json.
    It owns precision, ZeRO stage, batch sizes, clipping, optimizer and learning rate."""
    output: str = ""
    """Run folder: configuration, metrics.jsonl, tensorboard/, checkpoints/ and the final student/. Default: runs/<time>."""
    epochs: float = 3.0
    """Passes over the corpus; decides the number of updates unless --max_updates does."""
    max_updates: int = 0
    """Optimizer updates to train for. 0: as many as --epochs need."""
    warmup_share: float = 0.05
    """Share of the updates in which the learning rate rises linearly from 0; afterwards it falls linearly to 0."""
    seed: int = 0
    """Seed of shuffling, masking, dropout and random initial weights."""
    log_every: int = 10
    """Updates between two lines of metrics.jsonl and TensorBoard."""
    eval_every: int = 500
    """Updates between two evaluations on --eval_data. The end of the run is always evaluated."""
    eval_sequences: int = 1024
    """Held-out sequences to score, spread evenly over --eval_data."""
    checkpoint_every: int = 1000
    """Updates between two checkpoints. The end of the run is always saved."""
    keep_checkpoints: int = 2
    """Newest checkpoints to keep."""
    max_skipped_updates: int = 20
    """Updates skipped in a row, because gradients are not finite, after which the run ends as diverged."""
    compile: bool = False
    """Fuse what is between the matrix products of student and teacher with torch.compile. The first update then takes up
    to a minute longer; needs a C++ compiler."""
    profile: int = 0
    """Updates to profile, after two of warm-up: a trace and a table of the longest items in the run folder's profile/."""
    plan: int = 0
    """Print what a run on so many ranks would take (settings and their origin, memory, time, disk), and end."""
    resume: bool = False
    """Continue the run in --output from its last checkpoint."""
    local_rank: int = -1
    """Passed by the deepspeed launcher; nothing for you to set."""

    def __post_init__(self) -> None:
        if self.max_updates < 0 or self.epochs <= 0:
            raise ValueError(f"--max_updates {self.max_updates} --epochs {self.epochs}: nothing would be trained")
        if not 0.0 <= self.warmup_share <= 1.0:
            raise ValueError(f"--warmup_share {self.warmup_share}: a share between 0 and 1 is needed, for example 0.05")
        for name in ("log_every", "eval_every", "checkpoint_every", "eval_sequences", "max_skipped_updates"):
            if getattr(self, name) < 1:
                raise ValueError(f"--{name} {getattr(self, name)}: at least 1 is needed")
        if self.plan < 0:
            raise ValueError(f"--plan {self.plan}: the number of ranks to plan for, for example 64")
        if self.profile < 0:
            raise ValueError(f"--profile {self.profile}: the number of updates to profile, for example 1")
        if self.resume and not self.output:
            raise ValueError("--resume needs --output, the run folder to continue, for example --output runs/wiki")
