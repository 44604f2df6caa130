"""What a child takes of memory and scratch space is seen from outside, also what has no name any more."""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
from pathlib import Path

from nas_ray.sandbox.gauges import UNCOUNTED, MemoryGauge, ScratchGauge

MIB = 1 << 20


def test_files_and_bytes_of_nested_folders_are_counted(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "file").write_bytes(bytes(MIB))
    (tmp_path / "other").write_bytes(bytes(MIB))
    counted = ScratchGauge(str(tmp_path), os.getpid(), None).read(None)
    assert counted is not None
    size, files = counted
    assert files == 4
    assert 2 * MIB <= size < 3 * MIB


def test_files_that_were_removed_while_open_or_mapped_still_count(tmp_path: Path) -> None:
    def count(removed: dict[int, int]) -> int:
        counted = ScratchGauge(str(tmp_path), os.getpid(), None).read(removed)
        assert counted is not None
        return counted[0]

    before = count({})
    with open(tmp_path / "open", "wb") as file:
        file.write(bytes(2 * MIB))
        file.flush()
        os.unlink(file.name)
        assert count({}) - before >= 2 * MIB
    assert count({}) - before < MIB
    with open(tmp_path / "mapped", "w+b") as file:
        file.truncate(4 * MIB)
        view = mmap.mmap(file.fileno(), 4 * MIB)
        inode = os.fstat(file.fileno()).st_ino
        os.unlink(file.name)
    view[:] = bytes(4 * MIB)
    assert count({}) - before >= 4 * MIB
    assert count({inode: 9 * MIB}) - before >= 9 * MIB
    view.close()


def test_folders_nested_beyond_any_path_count_as_too_many(tmp_path: Path) -> None:
    home = os.getcwd()
    os.chdir(tmp_path)
    try:
        for _ in range(60):
            os.mkdir("x" * 200)
            os.chdir("x" * 200)
    finally:
        os.chdir(home)
    counted = ScratchGauge(str(tmp_path), os.getpid(), None).read(None)
    assert counted is not None
    assert counted[1] >= UNCOUNTED


def test_looking_again_at_once_is_too_early(tmp_path: Path) -> None:
    for number in range(500):
        (tmp_path / str(number)).touch()
    gauge = ScratchGauge(str(tmp_path), os.getpid(), None)
    assert gauge.read(None) is not None
    assert gauge.read(None) is None


def test_memory_counts_from_what_the_process_began_with() -> None:
    code = "x = bytearray(50 << 20); print(flush=True); input(); y = bytearray(30 << 20); print(flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.readline()
        gauge = MemoryGauge(process.pid, 0)
        assert gauge.read() < 2 * MIB
        process.stdin.write("\n")
        process.stdin.flush()
        process.stdout.readline()
        assert 28 * MIB < gauge.read() < 40 * MIB
        assert 28 * MIB < gauge.peak < 40 * MIB
        assert gauge.threads == 1
        process.stdin.write("\n")
        process.stdin.flush()
        process.wait()
        assert gauge.read() == 0
        gauge.close()
