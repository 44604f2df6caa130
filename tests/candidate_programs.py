"""Programs for tests of building and evaluating: one that works, and ways to spoil it."""

from __future__ import annotations

import textwrap

HEADER = """
import torch
import torch.nn as nn
import torch.nn.functional as F
"""

GOOD = (
    HEADER
    + """

class Net(nn.Module):
    def __init__(self, in_shape, out_shape, prm, device):
        super().__init__()
        self.conv = nn.Conv2d(in_shape[1], 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.head = nn.Linear(8 * in_shape[2] * in_shape[3], out_shape[0])

    def forward(self, x):
        x = F.relu(self.norm(self.conv(x)))
        return self.head(x.flatten(1))
"""
)


def write_program(init: str, forward: str, top: str = "") -> str:
    """A program with these bodies of `__init__` (after `super`) and `forward`, and this code before the class."""
    return (
        HEADER
        + textwrap.dedent(top)
        + "\n\nclass Net(nn.Module):\n    def __init__(self, in_shape, out_shape, prm, device):\n"
        + "        super().__init__()\n"
        + textwrap.indent(textwrap.dedent(init), " " * 8)
        + "\n    def forward(self, x):\n"
        + textwrap.indent(textwrap.dedent(forward), " " * 8)
        + "\n"
    )
