"""A corpus of programs that count as seen before the first cycle.

In: a folder. Out: the texts of its .py files, in the order of their paths, so that every reading is the same.
"""

from __future__ import annotations

from pathlib import Path


class CorpusError(ValueError):
    """A corpus that cannot be read."""


def read_corpus(folder: str) -> list[str]:
    """The texts of all .py files in a folder and below it.

    Raises:
        CorpusError: there is no such folder, or no .py file in it.
    """
    root = Path(folder).expanduser()
    if not root.is_dir():
        raise CorpusError(f"novelty.corpus: {folder} is not a folder; give a folder of .py programs, or leave it out")
    paths = sorted(path for path in root.rglob("*.py") if path.is_file())
    if not paths:
        raise CorpusError(f"novelty.corpus: {folder} holds no .py file; give a folder of .py programs, or leave it out")
    return [path.read_text(encoding="utf-8", errors="replace") for path in paths]
