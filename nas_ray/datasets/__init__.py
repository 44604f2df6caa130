"""Data sets by name: decoded once to uint8 arrays, split once, the same for every candidate of a run.

In: a `DatasetConfig`. Out: a `Dataset`. Importing this imports neither torch nor torchvision.
`python -m nas_ray.datasets NAME` shows what a name gives here and, with `--download`, fetches it.
"""

from nas_ray.datasets.catalogue import dataset_names, load_dataset, load_datasets
from nas_ray.datasets.dataset import Dataset, DatasetError, DecodedImages, append_test, in_shape, out_shape

__all__ = [
    "Dataset",
    "DatasetError",
    "DecodedImages",
    "append_test",
    "dataset_names",
    "in_shape",
    "load_dataset",
    "load_datasets",
    "out_shape",
]
