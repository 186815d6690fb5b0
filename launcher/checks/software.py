"""Is the software there, and does it work? Compilers compile, libraries load; versions are those that were tested."""

import importlib.metadata
import importlib.util
import subprocess
import sys
import tempfile
from pathlib import Path

from launcher.checks.finding import Finding, failed, ok, warning
from model.kernels.choice import apex_obstacle
from model.kernels.native.library import compiler, obstacle

TESTED_TORCH = ((2, 11), (2, 13))
OLDEST_TORCH = (2, 10)
OLDEST_PYTHON = (3, 10)
PROGRAM = (
    "#include <vector>\n#include <omp.h>\nint main() { return std::vector<int>(omp_get_max_threads()).empty(); }\n"
)


def version_of(package: str) -> tuple[int, ...] | None:
    """(major, minor, patch) of an installed package, None where it is not installed; nothing is imported."""
    try:
        text = importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
    return tuple(int(part) for part in text.split("+")[0].split(".")[:3] if part.isdigit())


def dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))


def check_compiler() -> Finding:
    """Compiles and runs a program of three lines, with OpenMP."""
    why, action = "our CPU kernels are compiled here, where the CPU has AVX512-BF16", "install g++, or set CXX"
    path = compiler()
    if path is None:
        return failed("no C++ compiler", why, action)
    with tempfile.TemporaryDirectory() as folder:
        source, program = Path(folder) / "tiny.cpp", Path(folder) / "tiny"
        source.write_text(PROGRAM)
        command = [path, "-std=c++20", "-fopenmp", str(source), "-o", str(program)]
        built = subprocess.run(command, capture_output=True, text=True)
        if built.returncode:
            reason = next((text for text in built.stderr.splitlines() if "error" in text), built.stderr[:200])
            return failed(f"{path} does not compile three lines of C++20 with OpenMP: {reason}", why, action)
        if subprocess.run([str(program)]).returncode:
            return failed(f"what {path} compiles does not run", why, action)
    return ok(f"C++ compiler {path}")


def check_python_and_torch() -> Finding:
    python = sys.version_info[:3]
    if python < OLDEST_PYTHON:
        return failed(
            f"Python {dotted(python)}", f"the code needs {dotted(OLDEST_PYTHON)}", "make .venv with a newer one"
        )
    return judge_torch(version_of("torch"), f"Python {dotted(python)}, ")


def judge_torch(version: tuple[int, ...] | None, prefix: str = "") -> Finding:
    low, high = TESTED_TORCH
    action = f"install torch {dotted(low)} to {dotted(high)}"
    if version is None:
        return failed(f"{prefix}no torch", "nothing runs without it", action)
    found = f"{prefix}torch {dotted(version)}"
    if version[:2] < OLDEST_TORCH:
        return failed(found, "below 2.10 a weight file could run code in spite of weights_only", action)
    if not low <= version[:2] <= high:
        return warning(found, f"tested are {dotted(low)} to {dotted(high)}", f"{action}, or run the tests first")
    return ok(found)


def check_deepspeed() -> Finding:
    return judge_deepspeed(version_of("deepspeed"))


def judge_deepspeed(version: tuple[int, ...] | None) -> Finding:
    action = "pip install 'deepspeed>=0.19.5,<0.20'"
    if version is None:
        return failed("no DeepSpeed", "it is the engine", action)
    found = f"DeepSpeed {dotted(version)}"
    if version < (0, 19, 5):
        return failed(found, "before 0.19.5 it raced with torch.compile, or dropped a micro-batch", action)
    if version >= (0, 20):
        return failed(found, "its internals that checkpoints and metrics read were checked up to 0.19.8", action)
    return ok(found)


def check_native_kernels() -> Finding:
    problem = obstacle()
    if problem:
        why = "training on CPUs falls back to plain torch, 2 to 3 times slower; GPUs do not need them"
        return warning(
            f"our C++ kernels cannot run: {problem}", why, "nothing for GPUs; else a CPU with AVX512-BF16 and g++"
        )
    return ok("our C++ kernels are built and load")


def check_apex() -> Finding:
    """NVIDIA's, told from the package of that name on PyPI by what it contains; neither is run."""
    problem = apex_obstacle()
    if not problem:
        return ok("NVIDIA's apex with fused_layer_norm_cuda")
    if importlib.util.find_spec("apex") is None:
        return ok("no apex (optional: --kernels auto does not use it)")
    action = "pip uninstall apex; build NVIDIA's from its source if --kernels apex is wanted"
    return warning(problem, "--kernels apex would be refused", action)


def check_triton(has_cuda: bool) -> Finding:
    version = version_of("triton")
    if version is not None:
        return ok(f"Triton {dotted(version)}")
    if has_cuda:
        return warning(
            "no Triton", "layer norm, GELU and the loss run unfused on GPUs", "pip install triton (torch's own)"
        )
    return ok("no Triton (only GPUs use it)")


def check_transformers() -> Finding:
    return judge_transformers(version_of("transformers"))


def judge_transformers(version: tuple[int, ...] | None) -> Finding:
    action = "pip install 'transformers>=5.3'"
    if version is None:
        return failed("no transformers", "tokenizers and the check of an exported student need it", action)
    if version < (5, 3):
        return failed(f"transformers {dotted(version)}", "before 5.3 it loads weights unsafely", action)
    return ok(f"transformers {dotted(version)}")
