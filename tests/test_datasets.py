"""Data sets: what is read is what the files hold, splits are fair and fixed, and mistakes are explained."""

from __future__ import annotations

import gzip
import hashlib
import struct
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from nas_ray.config import DatasetConfig
from nas_ray.datasets import Dataset, DatasetError, dataset_names, in_shape, load_dataset, out_shape
from nas_ray.datasets.__main__ import main
from nas_ray.datasets.catalogue import measure_channels
from nas_ray.datasets.resizing import resize_images
from nas_ray.datasets.splits import split_stratified, take_stratified

DEBIAN_FASHION = Path("/usr/share/datasets/fashion-mnist")
IDX_FILES = {
    "train-images-idx3-ubyte": ("train", 3),
    "train-labels-idx1-ubyte": ("train", 1),
    "t10k-images-idx3-ubyte": ("t10k", 3),
    "t10k-labels-idx1-ubyte": ("t10k", 1),
}


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load_dataset(DatasetConfig())


@pytest.fixture
def no_usual_places(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Points every place that an environment variable can move at empty folders."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("NAS_RAY_DATA", str(tmp_path / "data"))
    return tmp_path / "data"


def rows(images: NDArray[np.uint8], labels: NDArray[np.int64]) -> list[bytes]:
    return sorted(image.tobytes() + bytes([label]) for image, label in zip(images, labels, strict=True))


def write_idx(
    folder: Path, packed: bool, seed: int = 0, train: int = 50, test: int = 20
) -> dict[str, NDArray[np.uint8]]:
    """Writes the four files of a small IDX set; returns what each holds."""
    random = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    written = {}
    for name, (split, dimensions) in IDX_FILES.items():
        count = train if split == "train" else test
        if dimensions == 3:
            values = random.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        else:
            values = (np.arange(count) % 10).astype(np.uint8)
        content = struct.pack(f">HBB{dimensions}I", 0, 8, dimensions, *values.shape) + values.tobytes()
        (folder / (name + ".gz" * packed)).write_bytes(gzip.compress(content) if packed else content)
        written[name] = values
    return written


def write_image(
    file: Path, size: tuple[int, int] = (12, 10), colour: object = (200, 10, 10), mode: str = "RGB"
) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, colour).save(file)  # type: ignore[arg-type]


def fill_folder(root: Path, size: tuple[int, int] = (12, 10), mode: str = "RGB") -> None:
    for label, name in enumerate(("cat", "dog")):
        for number in range(6):
            shade = 40 * number + label
            write_image(root / "train" / name / f"{number}.png", size, shade if mode == "L" else (shade, 0, 90), mode)


def test_digits_is_decoded_to_uint8_over_the_full_range(digits: Dataset) -> None:
    assert digits.train_images.dtype == np.uint8
    assert digits.train_labels.dtype == np.int64
    assert (digits.train_images.min(), digits.train_images.max()) == (0, 255)
    assert in_shape(digits) == (1, 1, 8, 8)
    assert out_shape(digits) == (10,)
    assert [len(digits.train_labels), len(digits.validation_labels), len(digits.test_labels)] == [1150, 288, 359]


def test_the_three_splits_of_digits_hold_every_image_once(digits: Dataset) -> None:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    ours = sorted(
        rows(digits.train_images, digits.train_labels)
        + rows(digits.validation_images, digits.validation_labels)
        + rows(digits.test_images, digits.test_labels)
    )
    assert ours == rows(np.rint(bunch.images * 255 / 16).astype(np.uint8), bunch.target)


def test_every_split_of_digits_has_the_classes_in_proportion(digits: Dataset) -> None:
    splits = [digits.train_labels, digits.validation_labels, digits.test_labels]
    total = np.bincount(np.concatenate(splits))
    for labels in splits:
        expected = total * len(labels) / total.sum()
        assert np.abs(np.bincount(labels) - expected).max() <= 1.5  # two roundings lie between


def test_the_test_split_of_digits_never_changes(digits: Dataset) -> None:
    digest = hashlib.sha256(digits.test_images.tobytes() + digits.test_labels.tobytes()).hexdigest()
    assert digest[:16] == "8be45f65c6b15331"
    other = load_dataset(DatasetConfig(split_seed=7, validation_fraction=0.5))
    np.testing.assert_array_equal(other.test_images, digits.test_images)


def test_the_split_seed_alone_decides_the_validation_split(digits: Dataset) -> None:
    again = load_dataset(DatasetConfig())
    np.testing.assert_array_equal(again.validation_images, digits.validation_images)
    other = load_dataset(DatasetConfig(split_seed=1))
    assert rows(other.validation_images, other.validation_labels) != rows(
        digits.validation_images, digits.validation_labels
    )


def test_limits_shrink_the_splits_and_keep_the_proportions() -> None:
    small = load_dataset(DatasetConfig(train_limit=100, validation_limit=50))
    assert (len(small.train_labels), len(small.validation_labels), len(small.test_labels)) == (100, 50, 359)
    assert np.ptp(np.bincount(small.train_labels)) <= 1


def test_a_split_that_comes_out_empty_is_an_error() -> None:
    with pytest.raises(DatasetError, match="0 validation"):
        load_dataset(DatasetConfig(validation_fraction=1e-6))


@given(
    labels=st.lists(st.integers(0, 5), min_size=1, max_size=80), share=st.floats(0.01, 0.99), seed=st.integers(0, 2**70)
)
def test_a_stratified_split_is_a_fair_partition(labels: list[int], share: float, seed: int) -> None:
    array = np.array(labels)
    kept, taken = split_stratified(array, share, seed)
    assert sorted([*kept, *taken]) == list(range(len(array)))
    for label in np.unique(array):
        size = int((array == label).sum())
        assert (array[kept] == label).sum() >= 1
        assert abs((array[taken] == label).sum() - min(share * size, size - 1)) <= 1 + 0.5 * share
    assert len(taken) <= round(share * len(array))


@given(labels=st.lists(st.integers(0, 5), min_size=1, max_size=80), count=st.integers(0, 100), seed=st.integers(0, 9))
def test_a_stratified_choice_has_the_asked_size_and_no_image_twice(labels: list[int], count: int, seed: int) -> None:
    chosen = take_stratified(np.array(labels), count, seed)
    assert len(set(chosen.tolist())) == len(chosen) == min(count, len(labels))


@settings(max_examples=30, deadline=None)
@given(height=st.integers(4, 40), width=st.integers(4, 40), side=st.integers(4, 64), seed=st.integers(0, 99))
def test_resizing_agrees_with_pillow(height: int, width: int, side: int, seed: int) -> None:
    images = np.random.default_rng(seed).integers(0, 256, (2, 3, height, width), dtype=np.uint8)
    ours = resize_images(images, side)
    for image, mine in zip(images, ours, strict=True):
        pillow = Image.fromarray(image.transpose(1, 2, 0)).resize((side, side), Image.Resampling.BILINEAR)
        difference = mine.astype(int) - np.asarray(pillow).transpose(2, 0, 1)
        assert np.abs(difference).max() <= 1  # Pillow rounds twice


def test_resolution_resizes_all_splits_and_statistics_follow() -> None:
    big = load_dataset(DatasetConfig(), resolution=16)
    assert big.train_images.shape[1:] == big.validation_images.shape[1:] == big.test_images.shape[1:] == (1, 16, 16)
    assert big.mean[0] == pytest.approx((big.train_images / 255).mean(), abs=1e-9)


def test_channel_statistics_are_those_of_the_scaled_pixels() -> None:
    images = np.random.default_rng(0).integers(0, 256, (5000, 3, 4, 4), dtype=np.uint8)
    images[:, 2] = 7
    mean, std = measure_channels(images)
    np.testing.assert_allclose(mean, (images / 255).mean((0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(std[:2], (images / 255).std((0, 2, 3))[:2], rtol=1e-12)
    assert std[2] == 1.0  # constant: dividing by it must not make infinities


@pytest.mark.skipif(not DEBIAN_FASHION.is_dir(), reason="apt-get install dataset-fashion-mnist")
def test_the_real_fashion_mnist_is_found_and_whole(monkeypatch: pytest.MonkeyPatch, no_usual_places: Path) -> None:
    fashion = load_dataset(DatasetConfig(name="fashion-mnist"))
    assert np.bincount(fashion.train_labels).tolist() == [4800] * 10
    assert np.bincount(fashion.validation_labels).tolist() == [1200] * 10
    assert np.bincount(fashion.test_labels).tolist() == [1000] * 10
    assert fashion.mean[0] == pytest.approx(0.2860, abs=2e-3)  # the published figures, of all 60,000
    assert fashion.std[0] == pytest.approx(0.3530, abs=2e-3)


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
@pytest.mark.parametrize("packed", [True, False])
def test_idx_files_are_read_packed_or_not(tmp_path: Path, name: str, packed: bool) -> None:
    written = write_idx(tmp_path, packed)
    dataset = load_dataset(DatasetConfig(name=name, root=str(tmp_path)))
    np.testing.assert_array_equal(dataset.test_images[:, 0], written["t10k-images-idx3-ubyte"])
    np.testing.assert_array_equal(dataset.test_labels, written["t10k-labels-idx1-ubyte"])
    together = rows(
        np.concatenate([dataset.train_images, dataset.validation_images]),
        np.concatenate([dataset.train_labels, dataset.validation_labels]),
    )
    assert together == rows(written["train-images-idx3-ubyte"], written["train-labels-idx1-ubyte"].astype(np.int64))


def test_nas_ray_data_is_looked_into_first_and_a_root_alone(no_usual_places: Path, tmp_path: Path) -> None:
    in_data = write_idx(no_usual_places / "fashion-mnist", packed=True, seed=1)
    dataset = load_dataset(DatasetConfig(name="fashion-mnist"))
    np.testing.assert_array_equal(dataset.test_images[:, 0], in_data["t10k-images-idx3-ubyte"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match="apt-get install dataset-fashion-mnist"):
        load_dataset(DatasetConfig(name="fashion-mnist", root=str(tmp_path / "empty")))


def test_missing_files_name_the_places_and_the_remedies(no_usual_places: Path) -> None:
    with pytest.raises(DatasetError) as caught:
        load_dataset(DatasetConfig(name="mnist"))
    for part in (str(no_usual_places), "dataset.root", "--download", "train-images-idx3-ubyte"):
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "starts with nothing"),
        (struct.pack(">HBB3I", 0, 8, 3, 50, 28, 28) + b"\0" * 9, "holds 9 values"),
        (struct.pack(">HBB3I", 0, 13, 3, 0, 28, 28), "unsigned bytes"),
        (struct.pack(">HBB1I", 0, 8, 1, 2) + b"\0\0", "in 3 dimensions"),
    ],
)
def test_a_broken_idx_file_is_named(tmp_path: Path, content: bytes, reason: str) -> None:
    write_idx(tmp_path, packed=False)
    (tmp_path / "train-images-idx3-ubyte").write_bytes(content)
    with pytest.raises(DatasetError, match=reason) as caught:
        load_dataset(DatasetConfig(name="mnist", root=str(tmp_path)))
    assert "train-images-idx3-ubyte" in str(caught.value)


def test_a_cut_gzip_file_is_named(tmp_path: Path) -> None:
    write_idx(tmp_path, packed=True)
    file = tmp_path / "t10k-images-idx3-ubyte.gz"
    file.write_bytes(file.read_bytes()[:-50])
    with pytest.raises(DatasetError, match=r"t10k-images-idx3-ubyte\.gz cannot be read"):
        load_dataset(DatasetConfig(name="mnist", root=str(tmp_path)))


@pytest.mark.skipif(find_spec("torchvision") is not None, reason="torchvision is here")
@pytest.mark.parametrize("name", ["cifar10", "cifar100", "svhn"])
def test_without_torchvision_its_sets_say_what_to_do(name: str) -> None:
    with pytest.raises(DatasetError, match=r"requirements/torchvision\.txt"):
        load_dataset(DatasetConfig(name=name))


def test_a_folder_gives_classes_by_name_and_colours_as_they_are(tmp_path: Path) -> None:
    fill_folder(tmp_path)
    write_image(tmp_path / "test" / "dog" / "a.png", colour=(1, 2, 3))
    write_image(tmp_path / "validation" / "cat" / "a.png", colour=(4, 5, 6))
    (tmp_path / "train" / "cat" / "notes.txt").write_text("not an image")
    dataset = load_dataset(DatasetConfig(name="folder", root=str(tmp_path)))
    assert (dataset.classes, in_shape(dataset)) == (2, (1, 3, 10, 12))
    assert np.bincount(dataset.train_labels).tolist() == [6, 6]  # its own validation split is used
    np.testing.assert_array_equal(dataset.test_images[0, :, 4, 4], [1, 2, 3])
    np.testing.assert_array_equal(dataset.validation_images[0, :, 4, 4], [4, 5, 6])
    assert (dataset.test_labels.tolist(), dataset.validation_labels.tolist()) == ([1], [0])


def test_a_folder_without_a_test_split_gives_up_a_part_of_train(tmp_path: Path) -> None:
    fill_folder(tmp_path, mode="L")
    dataset = load_dataset(DatasetConfig(name="folder", root=str(tmp_path)))
    assert in_shape(dataset) == (1, 1, 10, 12)  # all grey: one channel
    assert [len(dataset.train_labels), len(dataset.validation_labels), len(dataset.test_labels)] == [8, 2, 2]


def test_images_of_different_sizes_are_listed_or_resized(tmp_path: Path) -> None:
    fill_folder(tmp_path)
    for number in range(7):
        write_image(tmp_path / "train" / "cat" / f"wide{number}.png", size=(30, 10 + number))
    with pytest.raises(DatasetError) as caught:
        load_dataset(DatasetConfig(name="folder", root=str(tmp_path)))
    for part in ("7 image(s) are not 12 x 10", "wide0.png: 30 x 10", "and 2 more", "protocol.resolution"):
        assert part in str(caught.value)
    assert in_shape(load_dataset(DatasetConfig(name="folder", root=str(tmp_path)), resolution=9)) == (1, 3, 9, 9)


def test_a_camera_orientation_is_applied(tmp_path: Path) -> None:
    fill_folder(tmp_path, size=(4, 6))
    image = Image.new("RGB", (6, 4), (0, 0, 0))
    image.putpixel((0, 0), (255, 255, 255))
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees: the first pixel belongs at the top right
    (tmp_path / "test" / "cat").mkdir(parents=True)
    image.save(tmp_path / "test" / "cat" / "turned.png", exif=exif)
    dataset = load_dataset(DatasetConfig(name="folder", root=str(tmp_path)))
    assert dataset.test_images[0, 0, 0].tolist() == [0, 0, 0, 255]


def test_unusable_images_are_named(tmp_path: Path) -> None:
    fill_folder(tmp_path)
    (tmp_path / "train" / "dog" / "torn.png").write_bytes(b"\x89PNG\r\n\x1a\n rest is missing")
    with pytest.raises(DatasetError, match=r"torn\.png"):
        load_dataset(DatasetConfig(name="folder", root=str(tmp_path)))
    (tmp_path / "train" / "dog" / "torn.png").unlink()
    Image.fromarray(np.full((10, 12), 60_000, dtype=np.uint16)).save(tmp_path / "train" / "dog" / "deep.png")
    with pytest.raises(DatasetError, match=r"deep\.png: pixels of mode I;16"):
        load_dataset(DatasetConfig(name="folder", root=str(tmp_path)))


def test_an_image_that_breaks_while_it_is_decoded_is_named(tmp_path: Path) -> None:
    fill_folder(tmp_path)
    noise = np.random.default_rng(0).integers(0, 256, (10, 12, 3), dtype=np.uint8)
    file = tmp_path / "train" / "dog" / "cut.png"
    Image.fromarray(noise).save(file)
    file.write_bytes(file.read_bytes()[:200])  # the header is whole
    with pytest.raises(DatasetError, match=r"(?s)cannot be decoded.*cut\.png"):
        load_dataset(DatasetConfig(name="folder", root=str(tmp_path)), resolution=8)


@pytest.mark.parametrize(
    ("missing", "message"),
    [("root", "set dataset.root"), ("train", "does not exist"), ("images", "no image in"), ("class", "does not: bird")],
)
def test_a_wrong_layout_is_explained(tmp_path: Path, missing: str, message: str) -> None:
    root: str | None = str(tmp_path)
    if missing == "root":
        root = None
    elif missing == "images":
        (tmp_path / "train" / "cat").mkdir(parents=True)
        (tmp_path / "train" / "dog").mkdir()
    elif missing == "class":
        fill_folder(tmp_path)
        write_image(tmp_path / "test" / "bird" / "a.png")
    with pytest.raises(DatasetError, match=message):
        load_dataset(DatasetConfig(name="folder", root=root))


def test_a_root_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="not a folder"):
        load_dataset(DatasetConfig(name="mnist", root=str(tmp_path / "nowhere")))


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installed package with entry points, as pip would leave it; returns its module file."""
    info = tmp_path / "stripes-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: stripes\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[nas_ray.datasets]\nstripes = stripes_of_test:read\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "stripes_of_test", raising=False)
    return tmp_path / "stripes_of_test.py"


def test_a_plugin_is_found_by_its_entry_point(plugin: Path, tmp_path: Path) -> None:
    plugin.write_text(
        "import numpy as np\n"
        "def read(root):\n"
        "    labels = np.arange(40) % 2\n"
        "    images = np.full((40, 1, 6, 6), int(root.endswith('7')), dtype=np.uint8)\n"
        "    return dict(train_images=images, train_labels=labels.astype(np.int32))\n"
    )
    (tmp_path / "root7").mkdir()
    dataset = load_dataset(DatasetConfig(name="stripes", root=str(tmp_path / "root7")), resolution=8)
    assert "stripes" in dataset_names()
    assert (dataset.classes, in_shape(dataset), dataset.train_labels.dtype) == (2, (1, 1, 8, 8), np.int64)
    assert dataset.train_images.max() == 1


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("raise OSError('no disk')", "stripes_of_test:read failed: OSError: no disk"),
        ("return 3", "returned int"),
        ("return dict(images=1)", "failed: TypeError"),
        ("return dict(train_images=np.zeros((4, 6, 6)), train_labels=np.arange(4))", "train_images is float64"),
        (
            "return dict(train_images=np.zeros((4, 1, 6, 6), np.uint8), train_labels=np.arange(3))",
            "train_labels is int",
        ),
        ("return dict(train_images=np.zeros((4, 1, 6, 6), np.uint8), train_labels=-np.arange(4))", "from -3 to 0"),
        ("return dict(train_images=np.zeros((4, 1, 6, 6), np.uint8), train_labels=np.zeros(4, int))", "at least 2"),
        (
            "i = np.zeros((4, 1, 6, 6), np.uint8); l = np.arange(4)\n"
            "    return dict(train_images=i, train_labels=l, test_images=i[..., :5], test_labels=l)",
            "they must be equal",
        ),
    ],
)
def test_a_wrong_plugin_is_told_what_is_wrong(plugin: Path, body: str, message: str) -> None:
    plugin.write_text(f"import numpy as np\ndef read(root):\n    {body}\n")
    with pytest.raises(DatasetError, match=message):
        load_dataset(DatasetConfig(name="stripes"))


def test_an_unknown_name_lists_the_known_ones_and_the_nearest() -> None:
    with pytest.raises(DatasetError, match=r"fashion-mnist.*Did you mean cifar10"):
        load_dataset(DatasetConfig(name="cifar-10"))


def test_the_command_shows_a_set_or_says_why_not(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["digits", "--resolution", "10"]) == 0
    assert "10 classes, 1 x 10 x 10" in capsys.readouterr().out
    assert main(["digitz"]) == 1
    assert "Did you mean digits" in capsys.readouterr().err


def test_importing_and_reading_digits_does_not_import_torch() -> None:
    program = (
        "import sys; from nas_ray.config import DatasetConfig; from nas_ray.datasets import load_dataset; "
        "load_dataset(DatasetConfig()); sys.exit('torch' in sys.modules or 'torchvision' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
