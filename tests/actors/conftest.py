"""A tiny language model and two adapters, made once for all tests of this folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.actors.tiny_model import save_adapter, save_model


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="session")
def adapters(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return [str(save_adapter(tiny_model, tmp_path_factory.mktemp(f"adapter{seed}"), seed)) for seed in (1, 2)]
