"""A run works the same wherever its folder is: on an object store as on a disk."""

from __future__ import annotations

from pathlib import Path

import pytest
from pyarrow import fs
from test_store import candidate, completion, evaluation

from nas_ray.config import RunConfig
from nas_ray.schema import CycleRow
from nas_ray.store import Store, StoreError
from nas_ray.store.place import ObjectPlace


def test_a_run_works_the_same_through_any_filesystem_of_pyarrow(tmp_path: Path) -> None:
    place = ObjectPlace("memory://runs/one", fs.SubTreeFileSystem(str(tmp_path), fs.LocalFileSystem()), "runs/one")
    store = Store(place, RunConfig())
    for index in range(4):
        store.append_candidate(candidate(index))
        store.append_evaluation(evaluation(index))
    for _step in store.compaction_steps(0):
        assert [row.index for row in store.candidates()] == [0, 1, 2, 3]
        assert len(store.evaluations()) == 4
    assert [path.name for path in tmp_path.rglob("candidates/*/*")] == ["part-00000000-00000003.parquet"]
    assert store.driver() is None
    with pytest.raises(StoreError, match="already"):
        store.append_candidate(candidate(3))
    assert store.adapter_folder(1) == "memory://runs/one/adapters/0001"


@pytest.mark.slow
def test_a_run_on_an_s3_server_is_created_written_and_read(monkeypatch: pytest.MonkeyPatch) -> None:
    server = pytest.importorskip("moto.server", reason="pip install 'moto[server]'").ThreadedMotoServer(port=0)
    server.start()
    try:
        host, port = server.get_host_and_port()
        for key in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.setenv(key, "test")
        address = f"s3://runs/one?scheme=http&endpoint_override={host}:{port}&region=us-east-1"
        fs.FileSystem.from_uri(f"{address}&allow_bucket_creation=true")[0].create_dir("runs")
        store = Store.create(address, RunConfig(name="remote"))
        for index in range(5):
            store.append_completion(completion(index), index)
            store.append_candidate(candidate(index))
        store.append_cycle(CycleRow(cycle=0))
        for _step in store.compaction_steps(0):
            assert [row.index for row in Store.open(address).candidates()] == list(range(5))
        again = Store.open(address)
        assert again.config.name == "remote"
        assert len(again.completions(0)) == 5
        assert again.cycles()[0].cycle == 0
        assert again.place.names("candidates/cycle=0000") == ["part-00000000-00000004.parquet"]
        with pytest.raises(StoreError, match="holds a run already"):
            Store.create(address, RunConfig())
        with pytest.raises(StoreError, match="is not a run folder"):
            Store.open(address.replace("runs/one", "runs/two"))
    finally:
        server.stop()
