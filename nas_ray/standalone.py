"""A program that loads its own weights, for those who have torch and safetensors but not nas-ray.

In: a program as written, the constants that its network is built with, a few lines about it. Out: Python source with
two functions more: `load(device)` and `normalise(pixels)`. Where the program uses such a name itself, ours gets a `_`.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from typing import Any

LOADER = '''

# ---- added by nas-ray: everything above is the program as the language model wrote it ----
{NETWORK} = {values}


def {load}(device="cpu"):
    """The trained network in evaluation mode: normalised float32 images (N, C, H, W) to logits (N, classes)."""
    from pathlib import Path

    import torch
    from safetensors.torch import load_file

    place = torch.device(device)
    net = Net({NETWORK}["in_shape"], {NETWORK}["out_shape"], dict({NETWORK}["prm"]), place).to(place)
    net.load_state_dict(load_file(Path(__file__).with_suffix(".safetensors"), device=str(place)))
    return net.eval()


def {normalise}(pixels):
    """uint8 pixels (N, C, H, W) as the network was trained on them: float32 (pixel / 255 - mean) / std by channel."""
    import torch

    mean, std = (torch.tensor({NETWORK}[key], device=pixels.device).view(-1, 1, 1) for key in ("mean", "std"))
    return (pixels.to(torch.float32) / 255 - mean) / std
'''


def write_standalone(code: str, network: Mapping[str, Any], about: Sequence[str]) -> str:
    """The source of the file.

    Args:
        network: "in_shape", "out_shape", "prm", "mean", "std": plain values.
        about: lines of the comment at its head; `{load}` in them becomes the name of that function.
    """
    taken = _names(code)
    names = {name: _free(name, taken) for name in ("NETWORK", "load", "normalise")}
    values = "{\n" + "".join(f"    {name!r}: {value!r},\n" for name, value in network.items()) + "}"
    head = "".join(f"# {line.replace('{load}', names['load'])}\n" for line in about)
    return f"{head}\n{code.rstrip()}\n{LOADER.format(values=values, **names)}"


def _names(code: str) -> set[str]:
    """Every name that a program defines or uses, wherever it does."""
    tree = list(ast.walk(ast.parse(code)))
    used = {node.id for node in tree if isinstance(node, ast.Name)}
    defined = {node.name for node in tree if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))}
    imported = {
        (alias.asname or alias.name).split(".")[0]
        for node in tree
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for alias in node.names
    }
    return used | defined | imported


def _free(name: str, taken: set[str]) -> str:
    while name in taken:
        name += "_"
    return name
