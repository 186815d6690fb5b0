"""The rehearsal: its parts by themselves, what it refuses, and all of it on a real run that is really killed."""

import copy
import dataclasses
import json
import os
import signal
import subprocess
import uuid
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer, BertForMaskedLM, RobertaForMaskedLM

from command_line import parse
from launcher import rehearsal
from launcher.rehearsal import MARK, RehearsalError, compare, kill_all, processes
from launcher.small_run import TOKENS_ON_A_CPU, Flags, arguments, cut_teacher, shrink
from tests.conftest import Toy
from tests.launch import ROOT, ds_config, run
from tests.model.helpers import published

LINE = {"update": 1, "loss": 3.0, "loss_mlm": 2.0, "grad_norm": 1.0, "tokens": 7, "tokens_per_second": 10.0}


def flags(*words: object) -> Flags:
    return parse(Flags, [str(word) for word in words], "")


def user_flags(toy: Toy, config: Path, output: Path) -> list[object]:
    common = ("--ds_config", config, "--teacher", toy.teacher, "--data", toy.train, "--max_length", 40)
    return [*common, "--output", output, "--temperature", 3, "--checkpoint_every", 500, "--student_layers", "0,1,3"]


def test_a_teacher_is_cut_to_its_first_layers(toy: Toy, tmp_path: Path) -> None:
    cut_teacher(str(toy.teacher), tmp_path / "cut")
    whole, cut = (
        BertForMaskedLM.from_pretrained(toy.teacher).eval(),
        BertForMaskedLM.from_pretrained(tmp_path / "cut").eval(),
    )
    assert (whole.config.num_hidden_layers, cut.config.num_hidden_layers) == (4, 2)
    ids = AutoTokenizer.from_pretrained(tmp_path / "cut")("the bolan sees the doret .", return_tensors="pt")[
        "input_ids"
    ]
    with torch.no_grad():
        below = whole(ids, output_hidden_states=True).hidden_states[2]
        torch.testing.assert_close(cut(ids, output_hidden_states=True).hidden_states[2], below, rtol=1e-5, atol=1e-6)


def test_a_roberta_is_cut_where_its_positions_are(tmp_path: Path) -> None:
    whole = published("roberta", pad_token_id=3)
    whole.save_pretrained(tmp_path / "whole")
    cut_teacher(str(tmp_path / "whole"), tmp_path / "cut")
    cut = RobertaForMaskedLM.from_pretrained(tmp_path / "cut").eval()
    ids = torch.arange(5, 25)[None]
    with torch.no_grad():
        below = whole(ids, output_hidden_states=True).hidden_states[2]
        torch.testing.assert_close(cut(ids, output_hidden_states=True).hidden_states[2], below, rtol=1e-5, atol=1e-6)
    assert cut.config.pad_token_id == 3


def test_the_small_run_is_the_users_otherwise(toy: Toy, tmp_path: Path) -> None:
    config = ds_config(tmp_path / "ds.json", train_batch_size=4096, train_micro_batch_size_per_gpu=128)
    small, notes = shrink(flags(*user_flags(toy, config, tmp_path / "run")), tmp_path, 2, on_gpu=False)
    again = flags(*arguments(small))
    assert again == small
    blend = flags(*user_flags(toy, config, tmp_path / "run"), "--data", "a:0.7", "b:0.3")
    assert flags(*arguments(blend)) == blend
    assert notes == []
    assert (small.objective.temperature, small.data.max_length, small.data.data) == (3, 40, (str(toy.train),))
    assert (small.run.checkpoint_every, small.student.student_layers) == (1, "")
    written = json.loads(Path(small.run.ds_config).read_text())
    assert written["train_micro_batch_size_per_gpu"] == TOKENS_ON_A_CPU // 40
    assert written["train_batch_size"] == 4 * (TOKENS_ON_A_CPU // 40)
    assert written["optimizer"] == json.loads(config.read_text())["optimizer"]


def test_what_only_gpus_have_is_replaced_on_a_cpu_and_said(toy: Toy, tmp_path: Path) -> None:
    words = [*user_flags(toy, ROOT / "ds_configs/zero2_fp16.json", tmp_path / "run"), "--kernels", "triton"]
    on_cpu, notes = shrink(flags(*words), tmp_path, 2, on_gpu=False)
    assert on_cpu.student.kernels == "auto"
    assert notes == ["no GPU here: bf16 instead of fp16", "no GPU here: --kernels auto instead of triton"]
    assert json.loads(Path(on_cpu.run.ds_config).read_text())["bf16"] == {"enabled": True}
    on_gpu, notes = shrink(flags(*words), tmp_path / "..", 2, on_gpu=True)
    assert (on_gpu.student.kernels, notes) == ("triton", [])


def test_a_changed_loss_is_found() -> None:
    second = {update: LINE | {"update": update} for update in range(1, rehearsal.UPDATES + 1)}
    first = copy.deepcopy({update: second[update] for update in (1, 2, 3)})
    first[3]["tokens_per_second"] = 99.0
    assert compare(first, second, 2, on_gpu=False) == "updates 3 to 3, made twice, gave the same losses bit for bit"
    first[3]["loss_mlm"] = 2.0000001
    with pytest.raises(RehearsalError, match=r"update 3 made again has loss_mlm 2\.0, it was 2\.0000001"):
        compare(first, second, 2, on_gpu=False)
    assert compare(first, second, 2, on_gpu=True).endswith("to 5e-08")
    first[3]["loss_mlm"] = 2.1
    with pytest.raises(RehearsalError, match="update 3"):
        compare(first, second, 2, on_gpu=True)
    with pytest.raises(RehearsalError, match="no update was made twice"):
        compare(first, second, 3, on_gpu=False)
    with pytest.raises(RehearsalError, match="expected 1 to 6"):
        compare(first, {1: LINE}, 0, on_gpu=False)


def test_orphans_are_found_and_killed() -> None:
    """A grandchild whose parent is gone, in a session of its own, deaf to SIGTERM."""
    mark = uuid.uuid4().hex
    code = "setsid sh -c \"trap '' TERM; echo started; while :; do sleep 1; done\" & exit"
    with subprocess.Popen(["sh", "-c", code], env=os.environ | {MARK: mark}, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"started\n"
        parent.wait()
        assert list(processes(mark))
        os.kill(next(processes(mark)), signal.SIGTERM)
        assert list(processes(mark))
        kill_all(mark)
    assert not list(processes(mark))


def test_bad_flags_and_a_missing_teacher_are_refused(toy: Toy, tmp_path: Path) -> None:
    config = ds_config(tmp_path / "ds.json")
    script = ROOT / "launcher/rehearse.sh"
    assert run([script, "--ds_config", config, "--temprature", 3]).returncode == 2
    result = run([script, *user_flags(dataclasses.replace(toy, teacher=tmp_path), config, tmp_path / "x/run")])
    assert result.returncode == 2
    assert result.stdout.startswith(f"error: no config.json in {tmp_path}")
    assert not list((tmp_path / "x").iterdir())


def test_a_run_that_fails_is_told_with_its_own_words(toy: Toy, tmp_path: Path) -> None:
    config = ds_config(tmp_path / "ds.json")
    words = user_flags(dataclasses.replace(toy, train=tmp_path / "none"), config, tmp_path / "run")
    result = run([ROOT / "launcher/rehearse.sh", *words])
    assert result.returncode == 1
    assert "rehearsal FAILED" in result.stdout
    assert "the first attempt ended by itself" in result.stdout
    assert f"no corpus at '{tmp_path / 'none'}'" in result.stdout
    assert len(list(tmp_path.glob("rehearsal-*/first.txt"))) == 1


@pytest.mark.slow
@pytest.mark.parametrize("stage", [1, 2])
def test_a_good_run_passes_and_leaves_nothing(toy: Toy, tmp_path: Path, stage: int) -> None:
    """In bf16, where DeepSpeed has a class of its own for ZeRO-1."""
    content = json.loads(ds_config(tmp_path / "ds.json", bf16={"enabled": True}).read_text())
    content["zero_optimization"]["stage"] = stage
    config = tmp_path / "ds.json"
    config.write_text(json.dumps(content))
    result = run([ROOT / "launcher/rehearse.sh", *user_flags(toy, config, tmp_path / "run")], timeout=280)
    assert result.returncode == 0, result.stdout
    *steps, last = [line for line in result.stdout.splitlines() if line.startswith(("ok", "rehearsal"))]
    assert [line.split()[1] for line in steps] == ["trained", "resumed", "updates", "DistilBertForMaskedLM"]
    assert "gave the same losses bit for bit" in steps[2]
    assert last.startswith("rehearsal passed in ")
    assert [path.name for path in tmp_path.iterdir()] == ["ds.json"]
