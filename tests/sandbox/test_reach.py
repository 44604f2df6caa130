"""A candidate can read what a network may import, and nothing that would help it cheat or that is anybody's."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import numpy
import pytest
import sklearn
import torch

from nas_ray.sandbox.reach import Reach, find_reach


@pytest.fixture(scope="module")
def reach(tmp_path_factory: pytest.TempPathFactory) -> Reach:
    return find_reach(str(tmp_path_factory.mktemp("scratch")))


def test_libraries_are_within_reach(reach: Reach) -> None:
    for module in (torch, numpy, os):
        assert module.__file__ is not None
        assert reach.may_read(os.path.realpath(module.__file__), listing=False)
    late = importlib.util.find_spec("sqlite3")
    assert late is not None
    assert late.origin is not None
    assert reach.may_read(os.path.realpath(late.origin), listing=False)


def test_data_sets_inside_packages_are_out_of_reach(reach: Reach) -> None:
    assert sklearn.__file__ is not None
    digits = Path(sklearn.__file__).parent / "datasets" / "data" / "digits.csv.gz"
    assert digits.exists()
    assert not reach.may_read(os.path.realpath(digits), listing=False)


@pytest.mark.parametrize("path", ["/etc/passwd", "/etc/shadow", "/root/.ssh", "/home", "/proc/1/environ", "/var/log"])
def test_what_is_anybodys_is_out_of_reach(reach: Reach, path: str) -> None:
    assert not reach.may_read(path, listing=True)
    assert not reach.may_write(path)


def test_this_repository_is_out_of_reach_but_for_the_package(reach: Reach) -> None:
    root = Path(__file__).parent.parent.parent
    assert not reach.may_read(os.path.realpath(root / "README.md"), listing=False)
    assert not reach.may_read(os.path.realpath(root), listing=True)


def test_a_folder_of_libraries_can_be_listed_without_being_readable(tmp_path: Path) -> None:
    reach = Reach(("/lib/python",), ("/lib/python/torch",), ("/dev/null",), str(tmp_path))
    assert reach.may_read("/lib/python", listing=True)
    assert not reach.may_read("/lib/python/sklearn/digits.csv", listing=False)
    assert reach.may_read("/lib/python/torch/nn.py", listing=False)
    assert not reach.may_read("/lib/python/torchdata/labels.csv", listing=False)


def test_only_scratch_and_devices_can_be_written(tmp_path: Path) -> None:
    reach = Reach((), ("/lib",), ("/dev/null", "/dev/dri"), str(tmp_path))
    assert reach.may_write(f"{tmp_path}/a/b")
    assert reach.may_write("/dev/null")
    assert reach.may_write("/dev/dri/renderD128")
    assert not reach.may_write("/lib/a")
    assert not reach.may_write(f"{tmp_path}2/a")
    assert not reach.may_write("/dev/null2")
