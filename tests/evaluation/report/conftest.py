"""One report with everything in it, and things in it that must not become markup."""

import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from evaluation.report.__main__ import main
from model.hub import load_model, save_model
from model.student import make_student
from tests.conftest import Toy
from tests.evaluation.report.run_folders import REAL_CURVE, write_run
from tests.evaluation.report.test_worth import speed_file, write_scores

HOSTILE = "<script>alert(1)</script> | `x` & \"quoted\" 'too'"


@dataclass(frozen=True)
class Reported:
    """Where it is, and what it is of."""

    output: Path
    distilled: Path
    going: Path
    arguments: list[str]

    @property
    def html(self) -> str:
        return (self.output / "report.html").read_text(encoding="utf-8")

    @property
    def markdown(self) -> str:
        return (self.output / "report.md").read_text(encoding="utf-8")


@pytest.fixture(scope="session")
def reported(toy: Toy, tmp_path_factory: pytest.TempPathFactory) -> Reported:
    folder = tmp_path_factory.mktemp("report")
    pair = {"teacher": str(toy.teacher), "eval_data": str(toy.heldout), "max_length": 40}
    distilled = write_run(folder / "runs" / "a & <b> run", end="FINISHED", **pair)
    model = make_student(load_model(toy.teacher), dropout=0.0)
    save_model(model, distilled / "student", "distilbert", model.state_dict())
    (distilled / "incidents").mkdir()
    incident = {"update": 17, "reason": HOSTILE, "micro_batches": [{"rank": 1, "micro_batch": 0}]}
    (distilled / "incidents" / "update-00000017.json").write_text(json.dumps(incident))
    curve = {update: accuracy - 0.06 for update, accuracy in REAL_CURVE.items()}
    going = write_run(folder / "runs" / "random", curve, until=410, student_init="random", **pair)
    with (going / "metrics.jsonl").open("a") as file:
        file.write('{"update": 420, "lo')
    pretraining = write_run(folder / "runs" / "pretraining", objective="mlm", eval_data="", has_teacher=False)
    teacher = write_scores(folder / "results" / "teacher", rte=[0.7], sst2=[0.9])
    student = write_scores(folder / "results" / "a", rte=[0.63], sst2=[0.81])
    arguments = [str(distilled), str(going), str(pretraining), "--results", f"teacher={teacher}", f"a={student}"]
    arguments += ["--speed", str(speed_file(folder / "speed.json")), "--sentences", "6", "--sequences", "24"]
    output = folder / "runs" / "report"
    assert main([*arguments, "--output", str(output)]) == 0
    return Reported(output=output, distilled=distilled, going=going, arguments=arguments)
