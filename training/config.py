"""How a run is run: where it writes, how long it lasts, what it reports.

Precision, ZeRO stage, batch sizes, clipping, optimizer and learning rate belong to the DeepSpeed JSON and have no flag.
"""

from dataclasses import dataclass

from training.lifecycle import parse_duration

AT_LEAST_ONE = (
    *("log_every", "eval_every", "eval_sequences", "checkpoint_every", "keep_checkpoints", "max_failed_saves"),
    *("max_skipped_updates", "hang_timeout", "max_crashes"),
)


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Where a run writes, how long it lasts and what it reports."""

    ds_config: str
    """DeepSpeed JSON, for example ds_configs/zero2.json.
    It owns precision, ZeRO stage, batch sizes, clipping, optimizer and learning rate."""
    output: str = ""
    """Run folder: configuration, metrics.jsonl, tensorboard/, checkpoints/ and the final student/. Default: runs/<time>."""
    epochs: float = 3.0
    """Passes over --data, each of as many sequences as its corpora have together; decides the number of updates unless
    --max_updates does."""
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
    max_failed_saves: int = 3
    """Checkpoints in a row that could not be written, after which the run ends."""
    max_skipped_updates: int = 20
    """Updates skipped in a row, because gradients are not finite, after which the run is rewound or ends as diverged."""
    rewinds: int = 0
    """Times to go back to the last checkpoint instead of ending as diverged, and go on without the sequences that were
    trained on since the first skipped update."""
    max_loss_ratio: float = 0.0
    """Skip an update whose loss is more than this many times the mean of the last 100. 0: never; 3 is usual."""
    check_weights_every: int = 500
    """Updates between two comparisons of the ranks' weights, which must be equal. 0: never."""
    stop_after: str = ""
    """HH:MM:SS from the start after which to save and stop with exit code 75, for example 23:30:00."""
    hang_timeout: float = 1800.0
    """Seconds without progress on a rank after which the run ends, with the stacks of all ranks."""
    max_crashes: int = 3
    """Failures in a row in the same update, over restarts, after which the run is not started again."""
    compile: bool = False
    """Fuse what is between the matrix products of student and teacher with torch.compile. The first update then takes up
    to a minute longer; needs a C++ compiler."""
    profile: int = 0
    """Updates to profile, after two of warm-up: a trace and a table of the longest items in the run folder's profile/."""
    plan: int = 0
    """Print what a run on so many ranks would take (settings and their origin, memory, time, disk), and end."""
    resume: bool = False
    """Continue the run in --output from its newest intact checkpoint, on any number of ranks; starts it where there is
    none yet."""
    local_rank: int = -1
    """Passed by the deepspeed launcher; nothing for you to set."""

    def __post_init__(self) -> None:
        if self.max_updates < 0 or self.epochs <= 0:
            raise ValueError(f"--max_updates {self.max_updates} --epochs {self.epochs}: nothing would be trained")
        if not 0.0 <= self.warmup_share <= 1.0:
            raise ValueError(f"--warmup_share {self.warmup_share}: a share between 0 and 1 is needed, for example 0.05")
        for name in AT_LEAST_ONE:
            if getattr(self, name) < 1:
                raise ValueError(f"--{name} {getattr(self, name)}: at least 1 is needed")
        for name in ("rewinds", "max_loss_ratio", "check_weights_every"):
            if getattr(self, name) < 0:
                raise ValueError(f"--{name} {getattr(self, name)}: 0 turns it off, less means nothing")
        if 0 < self.max_loss_ratio <= 1:
            raise ValueError(
                f"--max_loss_ratio {self.max_loss_ratio} would skip ordinary updates: 3 is usual, 0 never skips"
            )
        parse_duration(self.stop_after)
        if self.plan < 0:
            raise ValueError(f"--plan {self.plan}: the number of ranks to plan for, for example 64")
        if self.profile < 0:
            raise ValueError(f"--profile {self.profile}: the number of updates to profile, for example 1")
        if self.resume and not self.output:
            raise ValueError("--resume needs --output, the run folder to continue, for example --output runs/wiki")
