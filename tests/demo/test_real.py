"""What takes longer: real questions with an export of export.py's, WebGPU on a processor, browsers that lack something."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import transformers

from demo.build import build
from demo.config import BuildConfig
from demo.models import Model
from demo.node import DIST
from demo.site import write_site
from evaluation.tasks import TASKS
from exporting.command import export
from exporting.config import ExportConfig
from exporting.passages import QUESTIONS
from exporting.texts import read_dev
from tests.demo.browser import Browser
from tests.demo.conftest import Serve
from tests.demo.exports import FP32, tampered, write_export
from tests.demo.test_page import gives_up
from tests.demo.test_rules import DATA
from tests.demo.visits import agreement
from tests.evaluation.report.chromium import CHROMIUM

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: apt-get install chromium"),
]

ON_THE_PROCESSOR = ("--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader", "--enable-features=Vulkan")


@pytest.fixture(scope="module")
def with_webgpu(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("profile"), *ON_THE_PROCESSOR) as chromium:
        yield chromium


def test_real_questions_have_pythons_answers(browser: Browser, site: Path, serve: Serve, tmp_path: Path) -> None:
    """In fp32: in int8, random weights make near ties of many answers."""
    if not (DATA / "squad/dev-v1.1.json").is_file():
        pytest.skip(f"no {DATA / 'squad/dev-v1.1.json'}")
    torch.manual_seed(0)
    tokenizer = transformers.BertTokenizerFast(vocab=str(DATA / "vocab/bert-base-uncased-vocab.txt"))
    shape = {"dim": 64, "n_heads": 2, "hidden_dim": 128, "n_layers": 2, "initializer_range": 0.3}
    config = transformers.DistilBertConfig(vocab_size=len(tokenizer), max_position_embeddings=384, **shape)
    transformers.DistilBertForQuestionAnswering(config).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    flags = ExportConfig(
        input=str(tmp_path / "model"),
        output=str(tmp_path / "export"),
        formats=("hf", "onnx"),
        variants=("fp32",),
    )
    assert export(flags) == 0
    build(BuildConfig(student=str(tmp_path / "export"), output=str(tmp_path / "site"), precision="fp32"))
    pairs = [(example.texts[0], example.texts[1]) for example in read_dev(TASKS["squad"], str(DATA / "squad"), 50)]
    browser.visit(serve(tmp_path / "site"))
    browser.wait_until_checked(seconds=200)
    found = agreement(browser, {"student": (tmp_path / "export", FP32)}, pairs)["student"]
    assert found.others == found.ties == []
    assert found.same == 50


def choose_webgpu(browser: Browser) -> None:
    browser.evaluate(
        "(b => {b.value = 'webgpu'; b.dispatchEvent(new Event('change'))})(document.getElementById('backend'))"
    )


@pytest.fixture(scope="module")
def for_webgpu(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """onnxruntime-web 1.30's fused attention has no mask of keys on WebGPU."""
    return write_export(tmp_path_factory.mktemp("export") / "student", attention="plain")


def site_of(export: Path, output: Path) -> Path:
    write_site(DIST, {"student": Model(title="Student", folder=export, precision="int8")}, output)
    return output


def test_webgpu_is_used_where_it_is_right(
    with_webgpu: Browser, site: Path, for_webgpu: Path, serve: Serve, tmp_path: Path
) -> None:
    url = serve(site_of(for_webgpu, tmp_path / "site"))
    with_webgpu.visit(url)
    with_webgpu.wait_until_checked()
    [[_, answer, *_]] = with_webgpu.ask(*QUESTIONS[0])
    choose_webgpu(with_webgpu)
    with_webgpu.wait(
        "/WebGPU computes here what was exported/.test(document.querySelector('#student .state').textContent)", 150
    )
    assert with_webgpu.text("alert") == ""
    [[_, again, *_]] = with_webgpu.ask(*QUESTIONS[0])
    assert again == answer
    with_webgpu.visit(url)  # the choice is remembered, and so is the verdict
    assert "WebGPU computes here what was exported (checked at an earlier visit)" in with_webgpu.wait_until_checked()


def test_webgpu_that_is_wrong_is_replaced_and_so_is_nothing_else(
    with_webgpu: Browser, site: Path, for_webgpu: Path, serve: Serve, tmp_path: Path
) -> None:
    url = serve(site_of(tampered(for_webgpu, tmp_path / "other"), tmp_path / "site"))
    with_webgpu.visit(url)
    with_webgpu.evaluate("localStorage.setItem('distillery-backend', 'webgpu')")
    said = gives_up(with_webgpu, url)
    assert re.search(
        r"^WebGPU computes something else than was exported: an output differs .* by [\d.]+, .*"
        r"WebAssembly is used instead\.The student is not used: WebAssembly computes something else",
        said,
    )
    assert with_webgpu.evaluate("document.getElementById('backend').value") == "wasm"


def test_webgpu_that_cannot_run_a_model_is_replaced(with_webgpu: Browser, url: str) -> None:
    with_webgpu.visit(url)
    with_webgpu.wait_until_checked()
    choose_webgpu(with_webgpu)
    with_webgpu.wait("document.getElementById('alert').textContent")
    assert re.match(
        r"WebGPU does not run here \(.*key_padding_mask.*WebAssembly is used instead", with_webgpu.text("alert")
    )
    with_webgpu.wait_until_checked()
    assert with_webgpu.ask(*QUESTIONS[0])


@pytest.mark.parametrize(
    ("flag", "words"),
    [
        ("--no-enable-ssse3", "This browser's WebAssembly has no SIMD"),
        (
            "--wasm-max-mem-pages=250",
            r"There is not enough memory for this model of 1 MB .* Close other pages and reload",
        ),
    ],
)
def test_what_a_browser_lacks_is_said(flag: str, words: str, url: str, tmp_path: Path) -> None:
    with Browser(tmp_path, f"--js-flags={flag}") as chromium:
        assert re.search(words, gives_up(chromium, url))
