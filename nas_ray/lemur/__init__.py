"""LEMUR's programs and measurements, both ways: in as a seed corpus, out with the elites of a run.

LEMUR (https://github.com/ABrain-One/nn-dataset, the package nn-dataset) keeps one program a file and, for each program
and data set, a folder of JSON lists with one trial an entry. `import_lemur` turns such a tree into Parquet tables,
`Import` reads them back, `export_lemur` writes a run's elites as LEMUR keeps them.
"""

from nas_ray.lemur.errors import LemurError

__all__ = ["LemurError"]
