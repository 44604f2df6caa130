"""Containment: candidate programs run in warm, killable children, away from labels and from everything else.

In: code. Out: what became of it, as a value. `Sandbox` is the whole interface. Importing this does not import torch.
"""

from nas_ray.sandbox.launcher import ZygoteLost
from nas_ray.sandbox.supervisor import Sandbox, Training

__all__ = ["Sandbox", "Training", "ZygoteLost"]
