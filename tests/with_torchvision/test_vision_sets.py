"""torchvision's readers, on small files in the data sets' own binary formats. Needs requirements/torchvision.txt.

The readers check MD5 sums, so each test puts the small files' sums where the class keeps the real ones'; nothing else
is changed. Downloads are the real code too, from a server of the test's own on this machine.
"""

from __future__ import annotations

import gzip
import hashlib
import pickle
import struct
import tarfile
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from nas_ray.config import DatasetConfig, ProtocolConfig
from nas_ray.datasets import Dataset, DatasetError, in_shape, load_dataset
from nas_ray.datasets.__main__ import main

vision = pytest.importorskip("torchvision.datasets", reason="needs requirements/torchvision.txt")
pytestmark = pytest.mark.torchvision

PER_FILE, TEST = 20, 30  # images


def md5(file: Path) -> str:
    return hashlib.md5(file.read_bytes(), usedforsecurity=False).hexdigest()


def random_images(count: int, seed: int) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (count, 3, 32, 32), dtype=np.uint8)


def write_pickle(file: Path, value: dict[str, Any]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(pickle.dumps(value, protocol=2))


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of an HTTP server of the folder tmp_path/server."""
    (tmp_path / "server").mkdir()
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path / "server"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as http:
        Thread(target=http.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{http.server_port}"
        http.shutdown()


def write_cifar10(root: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Five training batches and one test batch: rows of 3,072 bytes, red plane first, and a list of labels."""
    folder = root / "cifar-10-batches-py"
    names = [f"data_batch_{number}" for number in range(1, 6)] + ["test_batch"]
    held: dict[str, Any] = {}
    for seed, name in enumerate(names):
        count = TEST if name == "test_batch" else PER_FILE
        held[name] = (random_images(count, seed), np.arange(count) % 10)
        images, labels = held[name]
        write_pickle(folder / name, {"data": images.reshape(count, -1), "labels": labels.tolist()})
    write_pickle(folder / "batches.meta", {"label_names": list("abcdefghij")})
    monkeypatch.setattr(vision.CIFAR10, "train_list", [[name, md5(folder / name)] for name in names[:5]])
    monkeypatch.setattr(vision.CIFAR10, "test_list", [["test_batch", md5(folder / "test_batch")]])
    meta = {"filename": "batches.meta", "key": "label_names", "md5": md5(folder / "batches.meta")}
    monkeypatch.setattr(vision.CIFAR10, "meta", meta)
    return {
        "train": tuple(np.concatenate([held[name][part] for name in names[:5]]) for part in (0, 1)),
        "test": held["test_batch"],
    }


def write_cifar100(root: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    folder = root / "cifar-100-python"
    held = {"train": (random_images(400, 1), np.arange(400) % 100), "test": (random_images(100, 2), np.arange(100))}
    for name, (images, labels) in held.items():
        coarse = (labels // 5).tolist()
        fine = {"data": images.reshape(len(images), -1), "fine_labels": labels.tolist(), "coarse_labels": coarse}
        write_pickle(folder / name, fine)
    write_pickle(folder / "meta", {"fine_label_names": [str(label) for label in range(100)]})
    for split in held:
        monkeypatch.setattr(vision.CIFAR100, f"{split}_list", [[split, md5(folder / split)]])
    meta = {"filename": "meta", "key": "fine_label_names", "md5": md5(folder / "meta")}
    monkeypatch.setattr(vision.CIFAR100, "meta", meta)
    return held


def write_svhn(root: Path, monkeypatch: pytest.MonkeyPatch, address: str = "") -> dict[str, Any]:
    """MATLAB files: X is (32, 32, 3, N), and the digit 0 has the label 10."""
    from scipy.io import savemat

    held, entries = {}, {}
    for seed, (split, count) in enumerate({"train": 100, "test": 40}.items()):
        images, labels = random_images(count, seed), np.arange(count) % 10
        file = root / f"{split}_32x32.mat"
        root.mkdir(parents=True, exist_ok=True)
        savemat(
            file, {"X": images.transpose(2, 3, 1, 0), "y": np.where(labels == 0, 10, labels)[:, None].astype(np.uint8)}
        )
        held[split] = (images, labels)
        entries[split] = [f"{address}/{file.name}", file.name, md5(file)]
    monkeypatch.setattr(vision.SVHN, "split_list", entries)
    return held


def write_mnist(raw: Path) -> None:
    raw.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    for name, shape in {
        "train-images-idx3-ubyte": (100, 28, 28),
        "train-labels-idx1-ubyte": (100,),
        "t10k-images-idx3-ubyte": (30, 28, 28),
        "t10k-labels-idx1-ubyte": (30,),
    }.items():
        values = random.integers(0, 256 if len(shape) == 3 else 10, shape, dtype=np.uint8)
        (raw / name).write_bytes(struct.pack(f">HBB{len(shape)}I", 0, 8, len(shape), *shape) + values.tobytes())


WRITERS = {"cifar10": write_cifar10, "cifar100": write_cifar100, "svhn": write_svhn}


def rows(images: NDArray[np.uint8], labels: NDArray[np.int64]) -> list[bytes]:
    return sorted(image.tobytes() + bytes([label]) for image, label in zip(images, labels, strict=True))


def check(dataset: Dataset, held: dict[str, Any]) -> None:
    assert in_shape(dataset) == (1, 3, 32, 32)
    np.testing.assert_array_equal(dataset.test_images, held["test"][0])
    np.testing.assert_array_equal(dataset.test_labels, held["test"][1])
    images = np.concatenate([dataset.train_images, dataset.validation_images])
    labels = np.concatenate([dataset.train_labels, dataset.validation_labels])
    assert rows(images, labels) == rows(*held["train"])


@pytest.mark.parametrize("name", list(WRITERS))
def test_a_set_is_read_as_it_was_written(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held = WRITERS[name](tmp_path, monkeypatch)
    dataset = load_dataset(DatasetConfig(name=name, root=str(tmp_path)))
    assert dataset.classes == (100 if name == "cifar100" else 10)
    check(dataset, held)


def test_a_root_may_name_the_inner_folder_and_nas_ray_data_the_outer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = write_cifar10(tmp_path / "cifar10", monkeypatch)
    check(load_dataset(DatasetConfig(name="cifar10", root=str(tmp_path / "cifar10" / "cifar-10-batches-py"))), held)
    monkeypatch.setenv("NAS_RAY_DATA", str(tmp_path))
    check(load_dataset(DatasetConfig(name="cifar10")), held)


@pytest.mark.parametrize("name", list(WRITERS))
def test_missing_and_damaged_files_are_explained(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DatasetError, match="--download"):
        load_dataset(DatasetConfig(name=name, root=str(tmp_path)))
    WRITERS[name](tmp_path, monkeypatch)
    for file in (file for file in tmp_path.rglob("*") if file.is_file()):
        file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(DatasetError, match="torchvision cannot read"):
        load_dataset(DatasetConfig(name=name, root=str(tmp_path)))


@pytest.mark.parametrize("name", ["MNIST", "FashionMNIST"])
def test_our_idx_reader_gives_what_torchvisions_gives(name: str, tmp_path: Path) -> None:
    write_mnist(tmp_path / name / "raw")
    ours = load_dataset(
        DatasetConfig(name={"MNIST": "mnist", "FashionMNIST": "fashion-mnist"}[name], root=str(tmp_path))
    )
    train, test = (getattr(vision, name)(tmp_path, train=flag) for flag in (True, False))
    np.testing.assert_array_equal(ours.test_images[:, 0], test.data.numpy())
    np.testing.assert_array_equal(ours.test_labels, test.targets.numpy())
    together = rows(
        np.concatenate([ours.train_images, ours.validation_images]),
        np.concatenate([ours.train_labels, ours.validation_labels]),
    )
    assert together == rows(train.data.numpy(), train.targets.numpy())


def test_a_download_happens_only_when_it_is_allowed(
    tmp_path: Path, server: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    held = write_cifar10(tmp_path / "server", monkeypatch)
    archive = tmp_path / "server" / "cifar-10-python.tar.gz"
    with tarfile.open(archive, "w:gz") as packed:
        packed.add(tmp_path / "server" / "cifar-10-batches-py", "cifar-10-batches-py")
    monkeypatch.setattr(vision.CIFAR10, "url", f"{server}/{archive.name}")
    monkeypatch.setattr(vision.CIFAR10, "tgz_md5", md5(archive))
    root = tmp_path / "new"
    root.mkdir()
    with pytest.raises(DatasetError, match="no cifar-10-batches-py"):
        load_dataset(DatasetConfig(name="cifar10", root=str(root)))
    assert list(root.iterdir()) == []
    assert main(["cifar10", "--root", str(root), "--download"]) == 0
    assert "10 classes, 3 x 32 x 32" in capsys.readouterr().out
    check(load_dataset(DatasetConfig(name="cifar10", root=str(root))), held)


def test_svhn_and_mnist_are_downloaded_where_that_is_allowed(
    tmp_path: Path, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = write_svhn(tmp_path / "server", monkeypatch, server)
    check(load_dataset(DatasetConfig(name="svhn", root=str(tmp_path / "svhn")), download=True), held)
    write_mnist(tmp_path / "raw")
    resources = []
    for file in sorted((tmp_path / "raw").iterdir()):
        packed = tmp_path / "server" / f"{file.name}.gz"
        packed.write_bytes(gzip.compress(file.read_bytes()))
        resources.append((packed.name, md5(packed)))
    monkeypatch.setattr(vision.MNIST, "mirrors", [f"{server}/"])
    monkeypatch.setattr(vision.MNIST, "resources", resources)
    mnist = load_dataset(DatasetConfig(name="mnist", root=str(tmp_path / "mnist")), download=True)
    assert in_shape(mnist) == (1, 1, 28, 28)


def test_a_failed_download_is_an_error_that_names_the_set(
    tmp_path: Path, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vision.CIFAR10, "url", f"{server}/gone.tar.gz")
    with pytest.raises(DatasetError, match=r"cifar10: torchvision cannot read.*404"):
        load_dataset(DatasetConfig(name="cifar10", root=str(tmp_path / "new")), download=True)
    monkeypatch.setattr(vision.MNIST, "mirrors", [f"{server}/gone/"])
    with pytest.raises(DatasetError, match="mnist: the download"):
        load_dataset(DatasetConfig(name="mnist", root=str(tmp_path / "new")), download=True)


def test_a_network_trains_on_cifar10_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch
    from torch import nn

    from nas_ray.training import TrainingData, hyperparameters, train_and_predict

    class Net(nn.Sequential):
        def __init__(self, in_shape: Any, out_shape: Any, prm: Any, device: Any) -> None:
            super().__init__(
                nn.Conv2d(in_shape[1], 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10)
            )

    write_cifar10(tmp_path, monkeypatch)
    dataset = load_dataset(DatasetConfig(name="cifar10", root=str(tmp_path)), resolution=16)
    protocol = ProtocolConfig(augmentation=("flip", "crop"))
    data, inputs = TrainingData.from_dataset(dataset), torch.tensor(dataset.validation_images)
    result = train_and_predict(Net, data, inputs, protocol, "cpu", hyperparameters(protocol))
    assert result.logits.shape == (20, 10)
