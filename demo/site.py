"""A site: page, runtime and models, below names that change when they do, and site.json, which knows them all."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

from demo.models import TEXT_FILES, Model

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
    check_output(output)
    partial = output.with_name(output.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    site: dict[str, Any] = {"made_by": MADE_BY, "runtime": _runtime(dist, partial), "models": {}}
    for which in ("student", "teacher"):
        site["models"][which] = _model(models[which], partial) if which in models else None
    app = f"app-{_digest_of(dist / 'app')}"
    shutil.copytree(dist / "app", partial / app)
    index = (dist / "index.html").read_text(encoding="utf-8").replace("APP/", f"{app}/")
    (partial / "index.html").write_text(index, encoding="utf-8")
    site["files"] = [_entry(partial, path) for path in sorted(partial.rglob("*")) if path.is_file()]
    for file in site["files"]:
        file["mayChange"] = file["path"] == "index.html"
        # Whoever does not run on WebGPU need not keep its runtime, nor the teacher who has not asked for it.
        file["optional"] = "asyncify" in file["path"] or file["path"].startswith("models/teacher-")
    shutil.copy(dist / "service-worker.js", partial)
    (partial / "site.json").write_text(json.dumps(site, indent=1), encoding="utf-8")
    shutil.rmtree(output, ignore_errors=True)
    partial.rename(output)
    return site


def check_output(output: Path) -> None:
    """Errors: ValueError for a folder that is there, is not empty and is not a site."""
    if not output.exists() or (output.is_dir() and not any(output.iterdir())):
        return
    try:
        made_by = json.loads((output / "site.json").read_bytes())["made_by"]
    except (OSError, ValueError, KeyError, TypeError):
        made_by = ""
    if made_by != MADE_BY:
        raise ValueError(f"--output {output} is there, and is not a page built here. Give another folder, or remove it")


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
    digest = hashlib.sha256("".join(_sha256(path) for path in sources).encode()).hexdigest()[:12]
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
        "sha256": _sha256(path),
        "type": TYPES[path.suffix],
    }


def _digest_of(folder: Path) -> str:
    names = "".join(f"{path.name} {_sha256(path)}\n" for path in sorted(folder.iterdir()))
    return hashlib.sha256(names.encode()).hexdigest()[:12]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while part := file.read(1 << 20):
            digest.update(part)
    return digest.hexdigest()
