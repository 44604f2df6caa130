"""LEMUR's training interface, put on a program.

In: the code of a program, the protocol of a run. Out: the program with `supported_hyperparameters`, `train_setup` and
`learn`, which LEMUR's trainer calls. What a program has already is kept.
"""

from __future__ import annotations

import ast

from nas_ray.config import ProtocolConfig
from nas_ray.lemur.network import FUNCTION, MARK, METHODS, Definition, find_net
from nas_ray.training import hyperparameters

# A program that reads these gets them from LEMUR's trainer in any case; as hyperparameters they would be searched for
# between 0 and 1.
GIVEN = frozenset({"batch", "transform"})


def complete_interface(code: str, protocol: ProtocolConfig) -> str:
    """The program with all that LEMUR's trainer calls; what it lacks follows the run's protocol.

    Added are, at the end of `class Net`, `train_setup(self, prm)` and `learn(self, train_data)`, and, at the end of the
    file, `supported_hyperparameters()`.

    Raises:
        ValueError: there is no `class Net` at top level, or it has one of the two methods without the other: they share
            what they keep on `self`, and only the author knows what that is.
    """
    tree = ast.parse(code)
    net = find_net(tree)
    if net is None:
        raise ValueError("it has no class Net at top level")
    lines = code.rstrip("\n").split("\n")
    own = {node.name for node in net.body if isinstance(node, Definition)} & set(METHODS)
    if len(own) == 1:
        (missing,) = set(METHODS) - own
        raise ValueError(f"its Net has {own.pop()}, but not {missing}")
    if not own:
        first = net.body[0]
        indent = lines[first.lineno - 1][: first.col_offset]
        written = [indent + line if line else "" for line in [MARK, *_methods(protocol)]]
        end = net.end_lineno or len(lines)
        lines[end:end] = ["", *written]
    if FUNCTION not in {node.name for node in tree.body if isinstance(node, Definition)}:
        names = ", ".join(map(repr, hyperparameters_of(tree, protocol)))
        lines += ["", "", MARK, f"def {FUNCTION}():", f"    return {{{names}}}"]
    return "\n".join(lines) + "\n"


def hyperparameters_of(tree: ast.Module, protocol: ProtocolConfig) -> list[str]:
    """The names, sorted, that a program reads or that training by the protocol needs.

    Weight decay is not among them unless the program reads it: LEMUR draws what it has no range for between 0 and 1.
    """
    read = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    optimiser = {"lr", "momentum"} if protocol.optimiser == "sgd" else {"lr"}
    return sorted(optimiser | ((read & set(hyperparameters(protocol))) - GIVEN))


def _methods(protocol: ProtocolConfig) -> list[str]:
    """Lines of `train_setup` and `learn` by the protocol.

    A batch of a single image is left out, as in nas-ray, because batch normalisation cannot learn from one.
    """
    forward = ["logits = self(images)"]
    if protocol.precision == "bfloat16":
        forward = ["with torch.autocast(images.device.type, dtype=torch.bfloat16):", "    logits = self(images)"]
    names = "lr=prm['lr'], momentum=prm['momentum']" if protocol.optimiser == "sgd" else "lr=prm['lr']"
    kind = "SGD" if protocol.optimiser == "sgd" else "AdamW"
    decay = f"weight_decay=prm.get('weight_decay', {protocol.weight_decay!r})"
    return [
        "def train_setup(self, prm):",
        "    import torch",
        "",
        f"    self.optimizer = torch.optim.{kind}(self.parameters(), {names}, {decay})",
        "",
        "def learn(self, train_data):",
        "    import torch",
        "",
        "    place = next(self.parameters()).device",
        "    for images, labels in train_data:",
        "        if len(labels) < 2:",
        "            continue",
        "        images, labels = images.to(place), labels.to(place)",
        *(f"        {line}" for line in forward),
        "        loss = torch.nn.functional.cross_entropy(logits.float(), labels)",
        "        self.optimizer.zero_grad(set_to_none=True)",
        "        loss.backward()",
        "        self.optimizer.step()",
    ]
