"""A site: page, runtime and models, below names that change when they do, and site.json, which knows them all."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

from demo.models import TEXT_FILES, Model
from folders import LOCK, Product, sha256, staged

MADE_BY = "distillery's demo.build"
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript",
    ".mjs": "text/javascript",
    ".css": "text/css",
    ".json": "application/json",
    ".wasm": "application/wasm",
    ".txt": "text/plain; charset=utf-8",
    ".onnx": "application/octet-stream",
}
RUNTIMES = {"wasm": "ort-wasm-simd-threaded", "webgpu": "ort-wasm-simd-threaded.asyncify"}
"""Where the models run -> its files, without their endings."""


def write_site(dist: Path, models: dict[str, Model], output: Path) -> dict[str, Any]:
    """Everything below `output`, which is replaced in one step; returns site.json's content.

    Errors: ValueError for a folder that is there and is not a site, OSError.
    """
    with staged(output, SITE, [model.folder for model in models.values()]) as folder:
        return _write(dist, models, folder)


def _write(dist: Path, models: dict[str, Model], folder: Path) -> dict[str, Any]:
    site: dict[str, Any] = {"made_by": MADE_BY, "runtime": _runtime(dist, folder), "models": {}}
    for which in ("student", "teacher"):
        site["models"][which] = _model(models[which], folder) if which in models else None
    app = f"app-{_digest_of(dist / 'app')}"
    shutil.copytree(dist / "app", folder / app)
    index = (dist / "index.html").read_text(encoding="utf-8").replace("APP/", f"{app}/")
    (folder / "index.html").write_text(index, encoding="utf-8")
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != LOCK)
    site["files"] = [_entry(folder, path) for path in files]
    for file in site["files"]:
        file["mayChange"] = file["path"] == "index.html"
        # Whoever does not run on WebGPU need not keep its runtime, nor the teacher who has not asked for it.
        file["optional"] = "asyncify" in file["path"] or file["path"].startswith("models/teacher-")
    shutil.copy(dist / "service-worker.js", folder)
    (folder / "site.json").write_text(json.dumps(site, indent=1), encoding="utf-8")
    return site


def _is_site(folder: Path) -> bool:
    try:
        return json.loads((folder / "site.json").read_bytes())["made_by"] == MADE_BY
    except (OSError, ValueError, KeyError, TypeError):
        return False


SITE = Product("page built here", _is_site)
"""What demo.build writes."""


def _runtime(dist: Path, site: Path) -> dict[str, Any]:
    version = json.loads((dist / "runtime.json").read_bytes())["version"]
    folder = site / f"runtime-{version}"
    shutil.copytree(dist / "runtime", folder)
    files = {
        name: {ending: _entry(site, folder / f"{stem}.{ending}") for ending in ("mjs", "wasm")}
        for name, stem in RUNTIMES.items()
    }
    return {"version": version, **files}


def _model(model: Model, site: Path) -> dict[str, Any]:
    sources = [model.folder / name for name in (model.name, *TEXT_FILES.values())]
    digest = hashlib.sha256("".join(sha256(path) for path in sources).encode()).hexdigest()[:12]
    folder = site / "models" / f"{model.title.lower()}-{digest}"
    folder.mkdir(parents=True)
    for source in sources:
        shutil.copy(source, folder)
    files = {key: _entry(site, folder / name) for key, name in TEXT_FILES.items()}
    onnx = _entry(site, folder / Path(model.name).name)
    return {"title": model.title, "precision": model.precision, "name": model.name, "onnx": onnx, **files}


def _entry(site: Path, path: Path) -> dict[str, Any]:
    return {
        "path": path.relative_to(site).as_posix(),
        "bytes": path.stat().st_size,
        "sha256": sha256(path),
        "type": TYPES[path.suffix],
    }


def _digest_of(folder: Path) -> str:
    names = "".join(f"{path.name} {sha256(path)}\n" for path in sorted(folder.iterdir()))
    return hashlib.sha256(names.encode()).hexdigest()[:12]
