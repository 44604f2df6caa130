"""The operation graph of a program, and a signature that two programs share exactly when they compute the same network.

In: a network built and run once under a `Trace`. Out: 16 hex digits (`Trace.signature`), forward FLOPs, the bytes of
all intermediate results, and how deep the network is (`Trace.depth`).

A `Trace` sees every ATen operation that runs while it is active, during `__init__` (how parameters are initialised)
and during `forward` (what is computed). Each storage gets a digest of how its content came about; a tensor is a
storage's content plus geometry (offset, sizes, strides). So names, module structure, the order of independent
statements, and functional or in-place or module spelling leave no mark, and neither do views: `flatten`, `view` and
`squeeze` only change the geometry. Inputs of commutative operations are sorted. What `forward` computes but never
uses is left out.

Digests of results alone cannot tell one shared layer from two layers that are initialised alike. Parameters, buffers
and random draws therefore count as *sources*: the signature also holds, for each source, the operations that read
it.
"""

from __future__ import annotations

import ctypes
import hashlib
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedTensorMixin  # type: ignore[attr-defined]
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

# Schema names without namespace and trailing underscore. Their tensor inputs may come in any order.
COMMUTATIVE = frozenset(["add", "mul", "maximum", "minimum", "logical_and", "logical_or", "eq", "ne"])
# Two draws from the same distribution are different values.
DRAWING = frozenset(["uniform", "normal", "random", "exponential", "log_normal", "cauchy", "geometric", "bernoulli"])
RANDOM = DRAWING | frozenset(
    ["native_dropout", "rand", "randn", "randint", "randperm", "multinomial", "rrelu_with_noise"]
)
# What these write in place does not depend on what was there before.
OVERWRITING = DRAWING | frozenset(["fill", "zero", "copy"])
# Copies of a value; only their layout may differ from the original's.
COPYING = frozenset(["clone", "alias", "lift_fresh", "lift_fresh_copy", "lift", "_to_copy", "contiguous"])
# Reductions over dimensions: `keepdim` only changes the geometry of the result.
REDUCING = frozenset(["mean", "sum", "amax", "amin", "prod", "logsumexp", "var", "std"])
# Their second argument is a dimension of the (first) input: -1 is the last.
DIMENSIONED = frozenset(["cat", "_softmax", "_log_softmax", "cumsum", "glu"])
FILLING = frozenset(["fill", "full", "full_like", "new_full"])
CONSTANTS = {"zero": b"0", "zeros": b"0", "zeros_like": b"0", "new_zeros": b"0"}
CONSTANTS |= {"ones": b"1", "ones_like": b"1", "new_ones": b"1"}
# Linear maps, whose depth counts where a parameter is one side and the image, or what was made of it, the other.
WEIGHTED = frozenset(["convolution", "linear", "matmul", "mm", "addmm", "bmm", "baddbmm", "mv", "addmv", "_trilinear"])
WEIGHTED |= frozenset(["mkldnn_rnn_layer", "_thnn_fused_lstm_cell", "_thnn_fused_gru_cell"])
# Where a result lives or how it is laid out is no part of what it is.
PLACEMENT = frozenset(["device", "layout", "pin_memory", "memory_format", "generator"])
# The constructors whose numbers never pass the dispatcher.
LITERAL_BYTES = 1 << 20  # larger constants are told apart by type only
LITERALS = frozenset({torch.tensor, torch.as_tensor, torch.asarray, torch.from_numpy})


def _digest(*parts: bytes) -> bytes:
    """16 bytes over `parts`, each with its length so that no two lists of parts run together."""
    hasher = hashlib.blake2b(digest_size=16)
    for part in parts:
        hasher.update(struct.pack("<Q", len(part)))
        hasher.update(part)
    return hasher.digest()


def _leaves(value: object) -> Iterator[object]:
    """The leaves of nested lists, tuples and dicts, in order."""
    if isinstance(value, (list, tuple)):
        for item in value:
            yield from _leaves(item)
    elif isinstance(value, dict):
        for key in sorted(value, key=str):
            yield from _leaves(value[key])
    else:
        yield value


def _tensors(value: object) -> list[Tensor]:
    return [leaf for leaf in _leaves(value) if isinstance(leaf, Tensor)]


class _Node:
    """One content of one storage: its digest, the contents that it was computed from, and how deep it lies.

    `depth` counts weighted operations on the longest path from the image; -1 where no path leads there. `learned` is
    true for what was computed from parameters.
    """

    __slots__ = ("depth", "digest", "learned", "parents", "source")

    def __init__(self, digest: bytes, parents: tuple[_Node, ...], source: bool, weighted: bool = False) -> None:
        self.digest = digest
        self.parents = parents
        self.source = source
        self.learned: bool = any(parent.learned for parent in parents)
        self.depth: int = max((parent.depth for parent in parents), default=-1)
        if weighted and self.depth >= 0 and any(parent.learned and parent.depth < 0 for parent in parents):
            self.depth += 1


class _LiteralMode(TorchFunctionMode):
    """Tells the trace the numbers given to `torch.tensor` and its like, which the dispatcher never sees."""

    def __init__(self, trace: Trace) -> None:
        super().__init__()
        self.trace = trace

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func in LITERALS and args and isinstance(result, Tensor) and not isinstance(args[0], Tensor):
            self.trace.note_literal(result, args[0])
        return result


class Trace(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Records the operations that run while it is active (a context manager; enter it once).

    Attributes:
        flops: of every operation so far; a multiply-add counts 2 (formulas of `torch.utils.flop_counter`).
        activation_elements: elements of every result that was computed from a tensor and has memory of its own (views
            and in-place writes have none; what `torch.ones` and its like make is no activation).
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.flops = 0
        self.activation_elements = 0
        self._contents: dict[int, _Node] = {}
        self._storages: dict[int, torch.UntypedStorage] = {}  # held so that no address is used twice
        self._literals = _LiteralMode(self)

    def __enter__(self) -> Trace:
        super().__enter__()  # type: ignore[no-untyped-call]
        self._literals.__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *error: object) -> None:
        self._literals.__exit__(*error)  # type: ignore[no-untyped-call]
        super().__exit__(*error)  # type: ignore[no-untyped-call]

    def start_forward(self, network: nn.Module) -> None:
        """Ends the construction: parameters and buffers become sources, and the counters start at 0."""
        self.flops = 0
        self.activation_elements = 0
        for kind, tensors in ((b"parameter", network.parameters()), (b"buffer", network.buffers())):
            for tensor in tensors:
                if is_uninitialised(tensor):
                    continue
                before = self._content(tensor)
                trained = kind + (b"+" if tensor.requires_grad else b"-")
                node = _Node(_digest(trained, before.digest), (before,), source=True)
                node.learned = kind == b"parameter"
                self._set(tensor, node)

    def note_input(self, tensor: Tensor) -> None:
        """Marks the network's input, whose content is unknown by design."""
        node = _Node(_digest(b"input"), (), source=True)
        node.depth = 0
        self._set(tensor, node)

    def note_literal(self, tensor: Tensor, data: object) -> None:
        """Marks a tensor that was made from Python numbers (or an array)."""
        try:
            literal = torch.utils._pytree.tree_map(float, data) if isinstance(data, (list, tuple)) else data
            text = repr(literal.tolist() if hasattr(literal, "tolist") else literal)
        except (TypeError, ValueError):
            text = repr(data)
        self._set(tensor, _Node(_digest(b"literal", text.encode(errors="replace")), (), source=False))

    def signature(self, output: Tensor) -> str:
        """16 hex digits of everything that `output` was computed from."""
        reached: dict[int, _Node] = {}
        waiting = [self._content(output)]
        while waiting:
            node = waiting.pop()
            if id(node) not in reached:
                reached[id(node)] = node
                waiting.extend(node.parents)
        readers: dict[int, list[bytes]] = {key: [] for key, node in reached.items() if node.source}
        for node in reached.values():
            for parent in node.parents:
                if parent.source:
                    readers[id(parent)].append(node.digest)
        shared = sorted(_digest(reached[key].digest, *sorted(digests)) for key, digests in readers.items())
        return _digest(self._value(output), *shared).hex()[:16]

    def depth(self, output: Tensor) -> int:
        """The most weighted operations on any path from the input to `output`; 0 where none leads there."""
        return max(0, self._content(output).depth)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = func._schema.name.partition("::")[2].rstrip("_")
        inputs = _tensors((args, kwargs))
        storages = {t.untyped_storage()._cdata for t in inputs}
        key, parents = self._describe(name, func._schema, args, kwargs, inputs)
        result = func(*args, **kwargs)
        written = {id(t): t for t in self._written(func._schema, args, kwargs)}
        random, weighted = name in RANDOM, name in WEIGHTED
        formula = flop_registry.get(func._overloadpacket)
        if formula is not None:
            self.flops += int(formula(*args, **kwargs, out_val=result))
        for position, tensor in enumerate(_tensors(result)):
            if id(tensor) in written or tensor.untyped_storage()._cdata in storages:
                continue  # a view, or the tensor that was written in place
            self.activation_elements += tensor.numel() if inputs else 0
            if name in COPYING and _is_whole(tensor) and _is_whole(inputs[0]) and tensor.dtype == inputs[0].dtype:
                self._set(tensor, self._content(inputs[0]))
            else:
                self._set(tensor, _Node(_digest(key, struct.pack("<Q", position)), parents, random, weighted))
        for position, tensor in enumerate(written.values()):
            self._write(tensor, _Node(_digest(key, struct.pack("<Q", position)), parents, random, weighted))
        return result

    def _describe(
        self, name: str, schema: Any, args: Sequence[Any], kwargs: Mapping[str, Any], inputs: list[Tensor]
    ) -> tuple[bytes, tuple[_Node, ...]]:
        """The digest of an operation on its inputs as they are now, and the nodes of those inputs."""
        if name in CONSTANTS:
            return _digest(b"fill", CONSTANTS[name]), ()
        filled = args[2:3] if name == "new_full" else args[1:2]
        if name in FILLING and filled and not isinstance(filled[0], Tensor):
            return _digest(b"fill", *self._values(filled)), ()
        read, given = inputs, list(args)
        if name in OVERWRITING and schema.is_mutable:
            read, given = inputs[1:], given[1:]
        elif name == "adaptive_max_pool2d" and list(args[1]) == [1, 1]:
            name, given = "amax", [args[0], [args[0].dim() - 2, args[0].dim() - 1]]
        elif name in REDUCING and len(args) > 1 and isinstance(args[1], (list, tuple)):
            given = [args[0], sorted(dim % max(1, args[0].dim()) for dim in args[1]), *args[3:]]
        elif name in DIMENSIONED and len(args) > 1 and isinstance(args[1], int):
            given[1] = args[1] % max(1, inputs[0].dim())
        parts = self._values(given)
        options = {key: value for key, value in kwargs.items() if key not in PLACEMENT and value is not None}
        if options.get("alpha", 1) == 1:
            options.pop("alpha", None)
            if name in COMMUTATIVE:
                parts.sort()
        for key in sorted(options):
            parts += [key.encode(), *self._values([options[key]])]
        return _digest(name.encode(), *parts), tuple(self._content(tensor) for tensor in read)

    def _values(self, values: Iterable[Any]) -> list[bytes]:
        """Digests of arguments: tensors by value, numbers to 9 digits, dimensions and flags as they are."""
        parts: list[bytes] = []
        for value in values:
            if isinstance(value, Tensor):
                parts.append(self._value(value))
            elif isinstance(value, (list, tuple)):
                parts.append(_digest(b"list", *self._values(value)))
            elif isinstance(value, bool) or value is None:
                parts.append(repr(value).encode())
            elif isinstance(value, (int, float)):
                parts.append(f"{value:.9g}".encode())
            else:
                parts.append(str(value).encode())
        return parts

    def _value(self, tensor: Tensor) -> bytes:
        """The digest of what a tensor holds: its storage's content seen through its geometry."""
        geometry = (tensor.storage_offset(), tuple(tensor.size()), tuple(tensor.stride()), str(tensor.dtype))
        return _digest(self._content(tensor).digest, repr(geometry).encode())

    def _content(self, tensor: Tensor) -> _Node:
        address = tensor.untyped_storage()._cdata
        node = self._contents.get(address)
        if node is None:  # made before the trace began, or by means that the dispatcher does not see
            storage = tensor.untyped_storage()
            known = storage.device.type == "cpu" and 0 < storage.nbytes() <= LITERAL_BYTES
            data = ctypes.string_at(storage.data_ptr(), storage.nbytes()) if known else b""
            node = _Node(_digest(b"unknown", str(tensor.dtype).encode(), data), (), source=True)
            self._set(tensor, node)
        return node

    def _set(self, tensor: Tensor, node: _Node) -> None:
        storage = tensor.untyped_storage()
        self._storages[storage._cdata] = storage
        self._contents[storage._cdata] = node

    def _write(self, tensor: Tensor, node: _Node) -> None:
        """Records an in-place write: of a whole storage it is as good as a new result, of a part it adds to it."""
        if _is_whole(tensor):
            self._set(tensor, node)
            return
        before = self._content(tensor)
        geometry = repr((tensor.storage_offset(), tuple(tensor.size()), tuple(tensor.stride()))).encode()
        digest = _digest(b"write", before.digest, geometry, node.digest)
        written = _Node(digest, (before, *node.parents), node.source)
        written.depth = max(before.depth, node.depth)
        self._set(tensor, written)

    @staticmethod
    def _written(schema: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Tensor]:
        """The tensors that an operation writes into, by its schema."""
        if not schema.is_mutable:
            return []
        given = [
            args[position] if position < len(args) else kwargs.get(argument.name)
            for position, argument in enumerate(schema.arguments)
            if argument.alias_info is not None and argument.alias_info.is_write
        ]
        return _tensors(given)


def is_uninitialised(tensor: Tensor) -> bool:
    """True for the parameters and buffers of lazy modules that have seen no input yet: they have no shape."""
    return isinstance(tensor, UninitializedTensorMixin)


def _is_whole(tensor: Tensor) -> bool:
    """True where the tensor is all of its storage, in order."""
    return tensor.is_contiguous() and tensor.numel() * tensor.element_size() == tensor.untyped_storage().nbytes()
