"""What a program leaves is removed however it was made, and nothing else is ever touched."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from nas_ray.scratch import clear_scratch, make_scratch, remove_scratch


def make_deep(folder: Path, depth: int) -> None:
    home = os.getcwd()
    os.chdir(folder)
    try:
        for _ in range(depth):
            os.mkdir("x" * 20)
            os.chdir("x" * 20)
    finally:
        os.chdir(home)


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    folder = tmp_path / "nas-ray-sandbox-1-x"
    folder.mkdir()
    return folder


def test_a_folder_is_emptied_however_deep_and_whatever_the_names_and_modes(scratch: Path, tmp_path: Path) -> None:
    make_deep(scratch, 1500)
    (scratch / "locked" / "inner").mkdir(parents=True)
    (scratch / "locked" / "inner" / "file").touch()
    (scratch / "locked").chmod(0)
    for number in range(20):
        (scratch / f".{number}" / "kept" / "inner").mkdir(parents=True)
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").touch()
    (scratch / "link").symlink_to(outside)
    clear_scratch(str(scratch))
    assert os.listdir(scratch) == []
    assert (outside / "kept").exists()


@pytest.mark.parametrize("folder", [".", "", "/", "relative/nas-ray-x", "{tmp}"])
def test_nothing_but_a_scratch_folder_by_absolute_path_is_ever_cleared(
    folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "precious").write_text("x")
    with pytest.raises(ValueError, match="no scratch folder"):
        clear_scratch(folder.format(tmp=tmp_path))
    with pytest.raises(ValueError, match="no scratch folder"):
        remove_scratch(folder.format(tmp=tmp_path))
    assert (tmp_path / "precious").exists()


def test_what_a_dead_owner_left_is_removed_and_what_a_living_one_has_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    left, living = tmp_path / f"nas-ray-test-{dead.pid}-x", tmp_path / f"nas-ray-test-{os.getpid()}-x"
    left.mkdir()
    living.mkdir()
    make_deep(left, 1200)
    made = make_scratch("test")
    assert not left.exists()
    assert living.exists()
    assert os.listdir(made) == []


@pytest.mark.parametrize("says", [b"", b"garbage, and no frame"])
def test_a_zygote_without_a_word_from_its_starter_leaves_the_starters_folder_alone(
    says: bytes, scratch: Path, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "precious").write_text("x")
    ours, theirs = socket.socketpair()
    with theirs:
        zygote = subprocess.Popen(
            [sys.executable, "-m", "nas_ray.sandbox.zygote", str(theirs.fileno()), str(scratch)],
            pass_fds=(theirs.fileno(),),
            cwd=home,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)},
            stderr=subprocess.DEVNULL,
        )
    ours.sendall(says)
    ours.close()
    zygote.wait()
    assert (home / "precious").exists()
    assert not scratch.exists()
