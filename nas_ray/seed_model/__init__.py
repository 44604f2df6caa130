"""The seed model: the small language model that the package carries, so that a run needs neither a hub nor a GPU."""

from pathlib import Path


def folder() -> Path:
    """The folder of the seed model, in the layout of any Hugging Face causal language model (see its README.md)."""
    return Path(__file__).parent
