"""The error that is for people, apart from the modules that raise it so that they need not import one another."""

from __future__ import annotations


class LemurError(ValueError):
    """A LEMUR tree, an imported corpus or an export that cannot be used: which, why, and what to do."""
