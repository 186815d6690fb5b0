"""One rank that loads a pair and trains a few updates under torch's memory profiler: prints the most bytes that lived at a
time, as the plan predicts them and as the profiler saw them.

Arguments: DeepSpeed JSON, teacher, corpus, maximal length, trace.
"""

import json
import sys
from pathlib import Path

import torch

from data.config import DataConfig
from inputs import InputLoader
from model.config import ObjectiveConfig, StudentConfig
from model.objective import TripleLoss
from planning import Workload, _losses, _micro_batches
from training.config import RunConfig
from training.distributed import leave_ranks, start_ranks
from training.ds_config import read_ds_config
from training.engine import backward, start_engine

UPDATES = 3


def main(ds_config: str, teacher: str, data: str, max_length: str, trace: str) -> None:
    ranks = start_ranks()
    ds = read_ds_config(ds_config, num_ranks=1, device_type="cpu")
    source, run = StudentConfig(teacher=teacher, kernels="torch"), RunConfig(ds_config=ds_config, max_updates=UPDATES)
    corpus = DataConfig(data=(data,), max_length=int(max_length))
    options = {"seed": 0, "eval_sequences": 8, "is_distillation": True, "is_compiled": False}
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profiler:
        inputs = InputLoader(data=corpus, source=source, ds=ds, ranks=ranks, **options).load()
        work = Workload(inputs, ds, ObjectiveConfig(), corpus, run, 1, ranks.device)
        predicted = sum(work.tensors().values())
        engine = start_engine(inputs.student, ds, UPDATES, 0.0)
        objective = TripleLoss(work.objective)
        for number, (window, batch) in enumerate(_micro_batches(work, 0)):
            losses = _losses(objective, inputs, engine, batch, window)
            backward(engine, losses.total)
            engine.step()
            if number + 1 == UPDATES * ds.micro_batches_per_update:
                break
    profiler.export_chrome_trace(trace)
    events = json.loads(Path(trace).read_text())["traceEvents"]
    measured = max(event["args"]["Total Allocated"] for event in events if event.get("name") == "[memory]")
    print(json.dumps({"predicted": predicted, "measured": measured}))
    leave_ranks()


if __name__ == "__main__":
    main(*sys.argv[1:])
