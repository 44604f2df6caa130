"""A run's folder: everything that a search has found, in Parquet, on a disk or in an object store.

In: rows of `nas_ray.schema` from the one driver that writes. Out: the same rows to any number of readers, at any
moment, each key once. `place` keeps bytes under names, `parts` keeps rows in part files and merges them, `lock` lets
one process write, `run` is the run folder.
"""

from nas_ray.store.lock import Driver
from nas_ray.store.place import StoreError
from nas_ray.store.run import FORMAT, Recovery, Store, find_run

__all__ = ["FORMAT", "Driver", "Recovery", "Store", "StoreError", "find_run"]
