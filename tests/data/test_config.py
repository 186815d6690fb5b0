"""The knobs refuse what cannot work, naming the flag, and cost nothing to import."""

import subprocess
import sys
from pathlib import Path

import pytest

from data.config import DataConfig, parse_corpora


def test_the_recipe_is_the_default() -> None:
    config = DataConfig()
    assert (config.max_length, config.mask_probability, config.mask_smoothing) == (512, 0.15, 0.7)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("data", ()),
        ("data", ("",)),
        ("data", (":0.5",)),
        ("data", ("a:0",)),
        ("data", ("a:-1", "b:2")),
        ("data", ("a:nan", "b:2")),
        ("data", ("a:1", "b:inf")),
        ("data", ("a:1", "b")),
        ("max_length", 2),
        ("mask_probability", 0.0),
        ("mask_probability", 1.0),
        ("mask_probability", float("nan")),
        ("mask_smoothing", -0.1),
        ("mask_smoothing", float("nan")),
        ("prefetch", 0),
    ],
)
def test_a_bad_value_names_its_flag(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=rf"^--{field} ") as raised:
        DataConfig(**{field: value})  # type: ignore[arg-type]
    assert isinstance(value, tuple) or str(value) in str(raised.value)


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (("corpus/wiki",), (("corpus/wiki",), ())),
        (("a", "b"), (("a", "b"), ())),
        (("a:7", "b:3e-1"), (("a", "b"), (7.0, 0.3))),
        (("s3:bucket/a", "b:c"), (("s3:bucket/a", "b:c"), ())),  # what follows is no number: a part of the name
        (("a:5:1",), (("a:5",), (1.0,))),
    ],
)
def test_a_weight_is_the_number_after_the_last_colon(
    texts: tuple[str, ...], expected: tuple[tuple[str, ...], tuple[float, ...]]
) -> None:
    assert parse_corpora(texts) == expected


def test_importing_it_is_light() -> None:
    script = "import sys; import data.config; print(sorted(sys.modules))"
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", script], cwd=root, capture_output=True, text=True, check=True)
    for module in ("torch", "numpy", "tokenizers"):
        assert f"'{module}'" not in done.stdout
