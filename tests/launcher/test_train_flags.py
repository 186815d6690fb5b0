"""The flags of train.py, understood without starting it."""

import json
import subprocess
import sys

from tests.launch import ROOT, environment

GOOD = ["--ds_config", "ds_configs/zero2.json", "--temperature", "4", "--data", "a:0.5", "b:2", "--no_check_teacher"]


def test_values_defaults_and_refusals_come_in_order() -> None:
    lines = [GOOD, [*GOOD, "--temprature", "3"], GOOD[2:], ["--ds_config", "absent.json"], [*GOOD, "--seed", "x"]]
    asked = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "launcher.train_flags"],
        cwd=ROOT,
        env=environment(),
        input=json.dumps(lines),
        capture_output=True,
        text=True,
        check=True,
    )
    good, misspelt, incomplete, absent, malformed = json.loads(asked.stdout)
    flags = good["flags"]
    assert (flags["temperature"], flags["data"], flags["check_teacher"]) == (4.0, ["a:0.5", "b:2"], False)
    assert (flags["weight_mlm"], flags["max_length"], flags["seed"]) == (2.0, 512, 0)
    assert good["ds_config"]["train_batch_size"] == 4096
    assert misspelt["error"] == "Unrecognized options: --temprature, 3 (perhaps you meant --temperature FLOAT)"
    assert "--ds_config" in incomplete["error"]
    assert absent["error"].startswith("no DeepSpeed configuration at --ds_config absent.json")
    assert "--seed" in malformed["error"]
    assert "│" not in asked.stdout
    assert not any(line.split("|")[-1].strip() == "torch" for line in asked.stderr.splitlines())  # answers at once
