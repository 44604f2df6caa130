"""A run folder loses nothing and repeats nothing: whatever is killed, full, broken, or read during a write."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pyarrow.dataset
import pyarrow.parquet as pq
import pytest
import yaml

from nas_ray.candidate import Completion
from nas_ray.config import RunConfig
from nas_ray.outcome import Outcome, Stage
from nas_ray.schema import CandidateRow, CycleRow, EvaluationRow, NodeRow
from nas_ray.store import Store, StoreError, find_run


def candidate(index: int, cycle: int = 0, **values: object) -> CandidateRow:
    fixed = {"run": "r", "cycle": cycle, "index": index, "outcome": Outcome.VALID, "stage": Stage.TRAIN}
    return CandidateRow(**{**fixed, **values})  # type: ignore[arg-type]


def completion(index: int, cycle: int = 0) -> Completion:
    return Completion(cycle, index, "prompt", 3, "class Net: ...", 40, 20, 0.5, "stop", "vllm", 0)


def evaluation(index: int, cycle: int = 0, dataset: str = "digits") -> EvaluationRow:
    where = {"id": f"id{index}", "cycle": cycle, "index": index, "dataset": dataset}
    return EvaluationRow(**where, protocol="p", seed=0, epochs=1, accuracy=0.5, loss=1.0)  # type: ignore[arg-type]


def run_python(script: str, *arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", script, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, **options)  # type: ignore[call-overload,no-any-return]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "run"


@pytest.fixture
def store(folder: Path) -> Store:
    return Store.create(folder, RunConfig())


# Rows


def test_every_table_gives_back_what_was_appended_in_order(store: Store) -> None:
    for index in (2, 0, 1):
        store.append_completion(completion(index), arrival=index)
        store.append_candidate(candidate(index))
        store.append_evaluation(evaluation(index))
    store.append_candidate(candidate(0, cycle=1))
    store.append_cycle(CycleRow(cycle=1))
    store.append_cycle(CycleRow(cycle=0))
    again = Store.open(store.folder)
    assert again.completions(0) == [(index, completion(index)) for index in (0, 1, 2)]
    assert [row.index for row in again.candidates(0)] == [2, 0, 1]
    assert [(row.cycle, row.index) for row in again.candidates()] == [(0, 2), (0, 0), (0, 1), (1, 0)]
    assert [row.id for row in again.evaluations()] == ["id2", "id0", "id1"]
    assert [row.cycle for row in again.cycles()] == [0, 1]
    assert again.config == RunConfig()


def test_a_key_that_is_there_is_refused_and_the_first_row_kept(store: Store) -> None:
    store.append_candidate(candidate(1, detail="first"))
    with pytest.raises(StoreError, match=r"candidates .* hold a row for cycle=0, index=1 already"):
        store.append_candidate(candidate(1, detail="second"))
    store.close()
    with pytest.raises(StoreError, match=r"candidates .* hold a row for cycle=0, index=1 already"):
        Store.open(store.folder).append_candidate(candidate(1, detail="third"))
    assert [row.detail for row in Store.open(store.folder).candidates()] == ["first"]


def test_an_evaluation_is_one_per_dataset_protocol_seed_and_epochs(store: Store) -> None:
    store.append_evaluation(evaluation(1))
    store.append_evaluation(evaluation(1, dataset="fashion-mnist"))
    with pytest.raises(StoreError, match="dataset=digits"):
        store.append_evaluation(evaluation(1, cycle=5))
    assert [row.dataset for row in store.evaluations(dataset="digits")] == ["digits"]


def test_rows_of_one_training_are_kept_together_or_not_at_all(store: Store) -> None:
    both = [replace(evaluation(1), split=split) for split in ("test", "validation")]
    store.append_evaluation(*both)
    assert store.evaluations() == both
    assert len(list(Path(store.folder).rglob("evaluations/**/part-*.parquet"))) == 1
    again = [replace(evaluation(2), split="test"), both[1]]
    with pytest.raises(StoreError, match="split=validation"):
        store.append_evaluation(*again)
    assert Store.open(store.folder).evaluations() == both


def test_a_node_is_kept_once_for_each_kind_of_walls(store: Store) -> None:
    first = NodeRow(node="n1", walls="tier A: all", tier="A", host="one", address="10.0.0.1")
    second = NodeRow(node="n1", walls="tier D: none", tier="D", host="one", address="10.0.0.1", missing=("why",))
    store.append_node(first)
    store.append_node(second)
    with pytest.raises(StoreError, match=r"nodes .* hold a row for node=n1, walls=tier A: all already"):
        store.append_node(first)
    assert Store.open(store.folder).nodes() == [first, second]


def test_a_folder_from_before_containment_opens_and_has_no_nodes(store: Store) -> None:
    store.append_evaluation(evaluation(1))
    (part,) = Path(store.folder).rglob("evaluations/**/part-*.parquet")
    pq.write_table(pq.ParquetFile(part).read().drop_columns(["tier", "output"]), part)
    config = Path(store.folder) / "config.yaml"
    values = yaml.safe_load(config.read_text())
    del values["containment"]
    config.write_text(yaml.safe_dump(values))
    old = Store.open(store.folder)
    assert old.nodes() == []
    assert [(row.id, row.tier, row.output) for row in old.evaluations()] == [("id1", "", "")]
    assert old.config == RunConfig()


def test_a_data_sets_name_may_hold_any_character(store: Store) -> None:
    store.append_evaluation(evaluation(1, dataset="my/own = set, 50 %"))
    assert [row.dataset for row in store.evaluations()] == ["my/own = set, 50 %"]


def test_any_parquet_reader_reads_a_run(store: Store) -> None:
    for index in range(3):
        store.append_candidate(candidate(index, cycle=index % 2))
        store.append_evaluation(evaluation(index))
    (Path(store.folder) / "candidates/cycle=0000/.part-00000009-00000009.parquet.tmp").write_text("half a file")
    dataset = pyarrow.dataset.dataset(f"{store.folder}/candidates", partitioning="hive").to_table()
    keys = zip(dataset["cycle"].to_pylist(), dataset["index"].to_pylist(), strict=True)
    assert sorted(keys) == [(0, 0), (0, 2), (1, 1)]
    plain = pq.read_table(f"{store.folder}/evaluations").to_pylist()
    assert [(row["dataset"], row["cycle"], row["id"]) for row in plain] == [("digits", 0, f"id{i}") for i in range(3)]
    pandas = pytest.importorskip("pandas")
    assert len(pandas.read_parquet(f"{store.folder}/candidates")) == 3


# Compaction and kills

KILLED_COMPACTION = """
import os, signal, sys
from nas_ray.store import Store
# A fresh process for every step: each one is really killed, with whatever it had open.
for step in range(int(sys.argv[2])):
    if (child := os.fork()) == 0:
        for done, _ in enumerate(Store.open(sys.argv[1] + f"/{step}").compaction_steps(0), start=1):
            if done == step:
                os.kill(os.getpid(), signal.SIGKILL)
        os._exit(0)
    print(os.waitpid(child, 0)[1])
"""


def test_a_compaction_killed_after_any_step_loses_and_repeats_nothing(tmp_path: Path) -> None:
    rows, steps = [candidate(index) for index in range(4)], 7  # the step numbered 0 lets the whole of it run
    for step in range(steps):
        made = Store.create(tmp_path / str(step), RunConfig())
        for row in rows:
            made.append_candidate(row)
        made.close()
    result = run_python(KILLED_COMPACTION, str(tmp_path), str(steps))
    assert result.stdout.split() == ["0"] + [str(int(signal.SIGKILL))] * (steps - 1), result.stderr
    for step in range(steps):
        store = Store.open(tmp_path / str(step))
        assert store.candidates() == rows, f"before recovery, killed after step {step}"
        store.recover()
        assert store.candidates() == rows, f"after recovery, killed after step {step}"
        store.append_candidate(candidate(4))
        store.compact(0)
        assert store.candidates() == [*rows, store.candidates()[-1]]
        files = [path.name for path in (tmp_path / str(step) / "candidates/cycle=0000").iterdir()]
        assert files == ["part-00000000-00000004.parquet"], f"killed after step {step}"
        store.close()


def test_compaction_leaves_one_file_for_each_table_and_is_idempotent(store: Store) -> None:
    for index in range(5):
        store.append_completion(completion(index), index)
        store.append_candidate(candidate(index))
        store.append_evaluation(evaluation(index))
    before = (store.completions(), store.candidates(), store.evaluations())
    for _ in range(2):
        store.compact(0)
        assert (store.completions(), store.candidates(), store.evaluations()) == before
        assert len(list(Path(store.folder).rglob("cycle=0000/part-*.parquet"))) == 3


def test_appends_go_on_after_a_compaction_in_order(store: Store) -> None:
    for index in range(6):
        store.append_candidate(candidate(index))
        if index % 2:
            store.compact(0)
    assert [row.index for row in Store.open(store.folder).candidates()] == list(range(6))


def test_a_reader_sees_every_row_once_while_another_process_appends_and_compacts(store: Store) -> None:
    stop = threading.Event()
    problems: list[str] = []

    def read() -> None:
        reader, most = Store.open(store.folder), 0
        while not stop.is_set():
            seen = [row.index for row in reader.candidates()]
            if seen != list(range(len(seen))) or len(seen) < most:
                problems.append(f"{seen} after {most} rows had been seen")
            most = len(seen)

    thread = threading.Thread(target=read)
    thread.start()
    for index in range(120):
        store.append_candidate(candidate(index))
        if index % 6 == 5:
            store.compact(0)
    stop.set()
    thread.join()
    assert not problems


ENDLESS_APPENDS = """
import sys
from nas_ray.outcome import Outcome, Stage
from nas_ray.schema import CandidateRow
from nas_ray.store import Store
store = Store.open(sys.argv[1])
store.recover()
index = len(store.candidates())
while True:
    store.append_candidate(CandidateRow(run="r", cycle=0, index=index, outcome=Outcome.VALID, stage=Stage.TRAIN))
    print(index, flush=True)
    index += 1
"""


def test_a_driver_killed_while_appending_loses_no_row_that_it_had_written(store: Store) -> None:
    store.close()
    acknowledged = -1
    for lines in (3, 7, 12):
        command = [sys.executable, "-c", ENDLESS_APPENDS, store.folder]
        child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert child.stdout is not None
        for _ in range(lines):
            acknowledged = int(child.stdout.readline())
        child.kill()
        rest = child.stdout.read().split("\n")
        acknowledged = max([acknowledged, *(int(line) for line in rest[:-1])])
        child.wait()
        seen = [row.index for row in Store.open(store.folder).candidates()]
        assert seen == list(range(len(seen)))
        assert acknowledged + 1 <= len(seen) <= acknowledged + 2  # the last one may be written but not reported


def test_recovery_removes_temporary_files_and_half_written_adapters_only(store: Store) -> None:
    store.append_candidate(candidate(0))
    run = Path(store.folder)
    (run / "candidates/cycle=0000/.part-00000001-00000001.parquet.tmp").write_bytes(b"PAR1")
    for name in ("0001", ".0002.tmp"):
        (run / "adapters" / name).mkdir(parents=True)
        (run / "adapters" / name / "adapter_config.json").write_text("{}")
    found = store.recover()
    part = "candidates/cycle=0000/.part-00000001-00000001.parquet.tmp"
    assert sorted(found.temporary) == ["adapters/.0002.tmp", part]
    assert [path.name for path in (run / "adapters").iterdir()] == ["0001"]
    assert len(store.candidates()) == 1
    assert store.recover() == type(found)(temporary=(), replaced=())


# The lock


SECOND_DRIVER = """
import sys
from nas_ray.store import Store, StoreError
store = Store.open(sys.argv[1])
print(len(store.candidates()), store.driver().pid)
try:
    store.recover()
except StoreError as error:
    print(error)
"""


def test_a_second_driver_is_refused_by_name_and_readers_are_not(store: Store) -> None:
    store.append_candidate(candidate(0))
    result = run_python(SECOND_DRIVER, store.folder)
    assert result.stdout.splitlines()[0] == f"1 {os.getpid()}", result.stderr
    assert f"is being written by process {os.getpid()} on " in result.stdout


def test_a_dead_drivers_lock_is_free(store: Store) -> None:
    store.close()
    assert store.driver() is None
    script = "import os, sys; from nas_ray.store import Store; Store.open(sys.argv[1]).lock(); os.kill(os.getpid(), 9)"
    assert run_python(script, store.folder).returncode == -signal.SIGKILL
    other = Store.open(store.folder)
    assert other.driver() is None
    other.append_candidate(candidate(0))
    driver = other.driver()
    assert driver is not None
    assert driver.pid == os.getpid()


def test_a_writer_that_comes_back_sees_what_another_wrote_in_between(store: Store) -> None:
    store.append_candidate(candidate(0))
    store.close()
    other = Store.open(store.folder)
    other.append_candidate(candidate(1))
    other.close()
    with pytest.raises(StoreError, match="already"):
        store.append_candidate(candidate(1))
    store.append_candidate(candidate(2))
    assert [row.index for row in store.candidates()] == [0, 1, 2]


# Clear errors

FULL_DISK = """
import sys
from nas_ray.config import RunConfig
from nas_ray.outcome import Outcome, Stage
from nas_ray.schema import CandidateRow
from nas_ray.store import Store, StoreError
store = Store.create(sys.argv[1] + "/run", RunConfig())
row = lambda index: CandidateRow(run="r", cycle=0, index=index, outcome=Outcome.VALID, stage=Stage.TRAIN)
written = 0
try:
    while True:
        store.append_candidate(row(written))
        written += 1
except StoreError as error:
    print(error)
print(written, len(store.candidates()), *store.place.names("candidates/cycle=0000")[-1:])
try:
    store.compact(0)
except StoreError as error:
    print(error)
print(len(store.candidates()))
import os; os.remove(sys.argv[1] + "/ballast")
store.append_candidate(row(written))
store.compact(0)
print(len(Store.open(sys.argv[1] + "/run").candidates()) - written)
"""


def test_a_full_disk_is_named_and_the_run_goes_on_when_there_is_room(tmp_path: Path) -> None:
    mount = 'mount -t tmpfs -o size=400k tmpfs "$0" && head -c 200k /dev/zero > "$0/ballast" && exec "$1" -c "$2" "$0"'
    command = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", mount]
    probe = ["unshare", "--user", "--map-root-user", "--mount", "mount", "-t", "tmpfs", "tmpfs", str(tmp_path)]
    try:
        subprocess.run(probe, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this machine does not let a process mount a small file system of its own")
    result = subprocess.run(
        [*command, str(tmp_path), sys.executable, FULL_DISK], capture_output=True, text=True, timeout=120, check=False
    )
    full, counts, compaction, after, gained = result.stdout.splitlines()
    assert full.startswith("could not write candidates/cycle=0000/part-"), result.stderr
    assert "the disk is full (" in full
    assert f"in {tmp_path}/run" in full
    assert "nas-ray resume" in full
    written, seen, last = counts.split()
    assert written == seen == after
    assert int(last[5:13]) == int(written) - 1
    assert "the disk is full (" in compaction
    assert gained == "1"


def test_a_run_can_be_made_longer_but_not_shorter_than_it_is(store: Store) -> None:
    store.append_completion(completion(0, cycle=4), arrival=0)
    with pytest.raises(StoreError, match="has begun 5 cycles already, so it cannot end after 4"):
        store.change_cycles(4)
    store.change_cycles(9)
    assert Store.open(store.folder).config == RunConfig(cycles=9) == store.config


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("format: 2\n", "was written by a newer nas-ray: format 2, and this one reads format 1"),
        ("format: 0\n", "an older nas-ray: format 0"),
        ("name: x\n", "does not say its `format`"),
        ("- 1\n", "does not say its `format`"),
        ("format: [", "is damaged"),
        ("format: 1\ncycles: many\n", r"cycles = 'many'"),
    ],
)
def test_a_config_that_cannot_be_read_says_why(folder: Path, text: str, message: str) -> None:
    folder.mkdir()
    (folder / "config.yaml").write_text(text)
    with pytest.raises(StoreError, match=message) as caught:
        Store.open(folder)
    assert str(folder) in str(caught.value)


def test_a_folder_that_is_no_run_is_refused(folder: Path) -> None:
    with pytest.raises(StoreError, match=r"is not a run folder: it has no config\.yaml"):
        Store.open(folder)


def test_a_run_is_never_made_over_another(store: Store) -> None:
    with pytest.raises(StoreError, match=r"holds a run already.*nas-ray resume"):
        Store.create(store.folder, RunConfig(name="other"))
    assert Store.open(store.folder).config.name == RunConfig().name


def test_a_folder_that_cannot_be_made_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreError, match=r"cannot make the run folder|could not list"):
        Store.create(tmp_path / "file" / "run", RunConfig())


def test_a_damaged_part_is_named(store: Store) -> None:
    store.append_candidate(candidate(0))
    part = next(Path(store.folder).rglob("part-*.parquet"))
    part.write_bytes(b"not parquet")
    with pytest.raises(StoreError, match=f"{part} cannot be read"):
        Store.open(store.folder).candidates()


def test_a_run_is_found_by_folder_and_by_name(tmp_path: Path) -> None:
    made = Store.create(tmp_path / "runs" / "first", RunConfig())
    assert find_run(made.folder) == made.folder
    assert find_run("first", root=str(tmp_path / "runs")) == str(tmp_path / "runs/first")
    assert find_run("s3://bucket/run") == "s3://bucket/run"
    with pytest.raises(StoreError, match=r"'second' is not a run.*Runs under .*: first\."):
        find_run("second", root=str(tmp_path / "runs"))


def test_an_address_of_an_unknown_kind_is_refused() -> None:
    with pytest.raises(StoreError, match="s3://BUCKET/FOLDER"):
        Store.open("ftp://host/run")
