"""Shows a data set, and fetches it where that is asked for: a search itself never downloads anything.

python -m nas_ray.datasets digits
python -m nas_ray.datasets cifar10 --download --root /data/cifar10
"""

from __future__ import annotations

import argparse
import sys

from nas_ray.config import DatasetConfig
from nas_ray.datasets import DatasetError, dataset_names, load_dataset


def main(arguments: list[str] | None = None) -> int:
    """Prints the splits of one data set; returns 0, or 1 after printing why there is none."""
    parser = argparse.ArgumentParser(prog="python -m nas_ray.datasets", description=__doc__.splitlines()[0])
    parser.add_argument("name", help=f"one of {', '.join(dataset_names())}")
    parser.add_argument("--root", help="folder with the files; each data set has usual places")
    parser.add_argument("--resolution", type=int, help="side in pixels; none: as they are")
    parser.add_argument("--download", action="store_true", help="fetch missing files from the open network")
    options = parser.parse_args(arguments)
    config = DatasetConfig(name=options.name, root=options.root)
    try:
        dataset = load_dataset(config, options.resolution, download=options.download)
    except DatasetError as error:
        print(error, file=sys.stderr)
        return 1
    _, channels, height, width = dataset.train_images.shape
    print(f"{dataset.name}: {dataset.classes} classes, {channels} x {height} x {width} (channels, height, width)")
    sizes = {"training": dataset.train_labels, "validation": dataset.validation_labels, "test": dataset.test_labels}
    print("  images: " + ", ".join(f"{split} {len(labels):,}" for split, labels in sizes.items()))
    print("  mean " + ", ".join(f"{value:.4f}" for value in dataset.mean))
    print("  standard deviation " + ", ".join(f"{value:.4f}" for value in dataset.std))
    return 0


if __name__ == "__main__":
    sys.exit(main())
