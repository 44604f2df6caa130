"""Every function of nas_ray.theory gives the numbers of the reference vectors.

vectors.json: one vector a line, each value of which was computed in two independent ways. "inf" stands for infinity,
null for a number that is not defined.
"""

from __future__ import annotations

import importlib
import inspect
import json
import pkgutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import nas_ray.theory

VECTORS: list[dict[str, Any]] = json.loads(Path(__file__).with_name("vectors.json").read_text())
# Modules whose functions are the theory's; the others of the package hold what they are made of.
RESULTS = (
    "cross_entropy",
    "quality_gain",
    "convergence",
    "elite_rate_fits",
    "token_errors",
    "novelty_filter",
    "reliability",
    "reliability_estimates",
)
WITHOUT_VECTORS = {
    "likelihood_gain",
    "forecast_elite_rate",
    "akaike",
    "variance_ratio",
    "widen",
    "rate_interval",
    "forecast_target",
}


def result_modules() -> Iterator[ModuleType]:
    present = {module.name for module in pkgutil.iter_modules(nas_ray.theory.__path__)}
    yield from (importlib.import_module(f"nas_ray.theory.{name}") for name in RESULTS if name in present)


def public_functions() -> dict[str, Callable[..., Any]]:
    return {
        name: function
        for module in result_modules()
        for name, function in vars(module).items()
        if inspect.isfunction(function) and function.__module__ == module.__name__ and not name.startswith("_")
    }


def as_numbers(value: Any) -> Any:
    """Floats and arrays of them; "inf" and None as numbers."""
    if isinstance(value, list | tuple):
        return np.array([as_numbers(entry) for entry in value])
    return np.nan if value is None else np.asarray(value, dtype=np.float64)


def name(vector: dict[str, Any]) -> str:
    return f"{vector['function']}({', '.join(f'{key}={value}' for key, value in vector['inputs'].items())})"[:80]


@pytest.mark.parametrize("vector", VECTORS, ids=name)
def test_the_function_gives_the_reference_vector(vector: dict[str, Any]) -> None:
    result = public_functions()[vector["function"]](**vector["inputs"])
    plain = len(vector["expected"]) == 1 and isinstance(result, int | float | np.ndarray)
    for key, expected in vector["expected"].items():
        actual = result if plain else getattr(result, key)
        np.testing.assert_allclose(
            as_numbers(actual),
            as_numbers(expected),
            rtol=vector["test_rtol"],
            atol=vector["test_atol"],
            err_msg=f"{vector['function']}: {key}",
        )


def test_every_public_function_has_vectors_or_is_known_to_have_none() -> None:
    with_vectors = {vector["function"] for vector in VECTORS}
    assert set(public_functions()) == with_vectors | WITHOUT_VECTORS
    assert not with_vectors & WITHOUT_VECTORS


def test_no_function_is_written_twice() -> None:
    names = [
        function
        for module in result_modules()
        for function, value in vars(module).items()
        if inspect.isfunction(value) and value.__module__ == module.__name__ and not function.startswith("_")
    ]
    assert len(names) == len(set(names))
