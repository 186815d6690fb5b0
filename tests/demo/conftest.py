"""The page, built once a session with a small student and served to one browser."""

import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from demo.build import build
from demo.config import BuildConfig
from demo.serve import Handler, server
from tests.demo.browser import Browser
from tests.demo.exports import write_export
from tests.evaluation.report.chromium import CHROMIUM

Serve = Callable[..., str]
"""Site, handler -> the page's address."""

NO_NODE = "no node and npm here: apt-get install nodejs npm"
HAS_NODE = bool(shutil.which("node") and shutil.which("npm"))


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_export(tmp_path_factory.mktemp("export") / "student")


@pytest.fixture(scope="session")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_export(tmp_path_factory.mktemp("export") / "teacher", seed=1)


@pytest.fixture(scope="session")
def site(exported: Path, teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not HAS_NODE:
        pytest.skip(NO_NODE)
    output = tmp_path_factory.mktemp("site") / "site"
    build(BuildConfig(student=str(exported), teacher=str(teacher), output=str(output)))
    return output


@pytest.fixture(scope="session")
def serve() -> Iterator[Serve]:
    """Each call is another origin, whose page has kept nothing yet."""
    running = []

    def start(folder: Path, handler: type[Handler] = Handler) -> str:
        serving = server(folder, 0, handler)
        threading.Thread(target=serving.serve_forever, daemon=True).start()
        running.append(serving)
        return f"http://localhost:{serving.server_address[1]}/"

    yield start
    for serving in running:
        serving.shutdown()
        serving.server_close()


@pytest.fixture(scope="session")
def url(site: Path, serve: Serve) -> str:
    """Where most tests visit the page."""
    return serve(site)


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("no Chromium here: apt-get install chromium")
    with Browser(tmp_path_factory.mktemp("profile")) as chromium:
        yield chromium
