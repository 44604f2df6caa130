"""Adapter folders: whole or not there, never overwritten, on a disk and elsewhere."""

from __future__ import annotations

from pathlib import Path

import pytest
from pyarrow import fs

from nas_ray import adapters
from nas_ray.adapters import (
    adapter_folder,
    copy_adapter,
    fetch_adapter,
    folder_within,
    holds_adapter,
    newest_version,
    publish_adapter,
    remove_folder,
)
from nas_ray.finetune_report import FinetuneError, FinetuneReport


def make_adapter(folder: Path, weights: str = "weights") -> Path:
    folder.mkdir(parents=True)
    (folder / "adapter_model.safetensors").write_text(weights)
    (folder / "adapter_config.json").write_text("{}")
    FinetuneReport(adapter=str(folder), training_ids=("a", "b"), nll_before_train=(1.5, 2.5)).save(folder)
    return folder


def test_a_published_adapter_is_whole_and_can_be_fetched(tmp_path: Path) -> None:
    target = adapter_folder(tmp_path / "adapters", 3)
    assert not holds_adapter(target)
    publish_adapter(make_adapter(tmp_path / "new"), target)
    assert holds_adapter(target)
    assert newest_version(tmp_path / "adapters") == 3
    assert fetch_adapter(target, tmp_path / "scratch") == Path(target)
    assert (copy_adapter(target, tmp_path / "scratch") / "adapter_model.safetensors").read_text() == "weights"
    assert sorted(path.name for path in (tmp_path / "adapters").iterdir()) == ["0003"]


def test_a_version_is_never_overwritten(tmp_path: Path) -> None:
    target = adapter_folder(tmp_path / "adapters", 1)
    publish_adapter(make_adapter(tmp_path / "first", "first"), target)
    with pytest.raises(FinetuneError, match="0001"):
        publish_adapter(make_adapter(tmp_path / "second", "second"), target)
    assert (Path(target) / "adapter_model.safetensors").read_text() == "first"


def test_an_object_store_gets_the_report_last_and_gives_the_files_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The same calls that go to S3, on one of pyarrow's filesystems that needs no network.
    (tmp_path / "bucket").mkdir()
    bucket = fs.SubTreeFileSystem(str(tmp_path / "bucket"), fs.LocalFileSystem())
    monkeypatch.setattr(adapters, "_open", lambda folder: (bucket, folder.removeprefix("s3://")))
    bucket.create_dir("run/0001")
    target = adapter_folder("s3://run", 1)
    publish_adapter(make_adapter(tmp_path / "new"), target)
    assert holds_adapter(target)
    assert newest_version("s3://run") == 1
    with pytest.raises(FinetuneError):
        publish_adapter(tmp_path / "new", target)
    fetched = fetch_adapter(target, tmp_path / "scratch")
    assert fetched == tmp_path / "scratch" / "0001"
    assert {path.name for path in fetched.iterdir()} == {path.name for path in (tmp_path / "new").iterdir()}
    remove_folder(target)
    assert not holds_adapter(target)


def test_a_report_comes_back_as_it_was_written(tmp_path: Path) -> None:
    report = FinetuneReport(adapter="x", training_ids=("a",), nll_after_train=(0.1,), losses=(1.0, 0.5), seconds=2.5)
    report.save(tmp_path)
    assert FinetuneReport.load(tmp_path) == report


def test_the_options_of_an_address_stay_at_its_end() -> None:
    assert folder_within("s3://bucket/run?region=eu", "adapters") == "s3://bucket/run/adapters?region=eu"
    assert folder_within("runs/what?", "adapters") == "runs/what?/adapters"


def test_no_adapters_is_version_zero_and_removing_nothing_is_no_error(tmp_path: Path) -> None:
    assert newest_version(tmp_path / "none") == 0
    remove_folder(str(tmp_path / "none"))
