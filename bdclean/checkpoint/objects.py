"""Build tensors, arrays and plain values from the description of a file; all other objects are left out and listed."""

from __future__ import annotations

import re
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable
from typing import Any, cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from bdclean import first_ten
from bdclean.checkpoint.storages import stored
from bdclean.inert import nodes
from bdclean.inert.containers import Description
from bdclean.inert.nodes import RefusedError

MOST_DEPTH = 100
"""Maximum depth of nested containers and modules; writing them needs stack frames for each level."""
MOST_PARTS = 100_000
"""Maximum number of modules and tensors in a pickled network, whose modules may contain each other many times."""
ATOMS = frozenset({str, int, float, bool, bytes, bytearray, complex, type(None)})
TORCH_VALUE = re.compile(
    r"torch\.(b?float\w+|u?int\d+|complex\d+|bool|half|double|long|per_\w+|q\w+|strided|sparse_\w+)"
)
QUANTISED = "a quantised network, whose weights have no gradient: give the float network that it was made from"
LEFT_OUT = object()
"""Marks an object that is left out."""


class Builder:
    """Builds the content of a file.

    Args:
        description: Description of the file.

    Attributes:
        left_out: Kind of each object that is left out, by its place in the file.
        modules: Names of the classes of each pickled network, whose weights are kept, by its place in the file.
    """

    def __init__(self, description: Description) -> None:
        self.description = description
        self.left_out: dict[str, str] = {}
        self.modules: dict[str, list[str]] = {}
        # By ID; the described object is kept alive, so that no other object gets the same ID.
        self._done: dict[int, tuple[Any, Any]] = {}
        self._path: list[Any] = []
        self._parts = 0
        self._makers: dict[type, Callable[[Any], Any]] = {
            list: self._list,
            tuple: lambda value: tuple(self._members(value)),
            set: lambda value: set(self._members(value)),
            frozenset: lambda value: frozenset(self._members(value)),
            dict: self._dictionary,
            OrderedDict: self._dictionary,
            Counter: self._dictionary,
            nodes.Tensor: self._tensor,
            nodes.Quantized: self._quantized,
            nodes.Sparse: self._sparse,
            nodes.Array: self._array,
            nodes.Dtype: self._dtype,
            nodes.Picture: self._picture,
            nodes.Made: _made,
            nodes.Name: self._name,
            nodes.Object: self._object,
            nodes.Storage: lambda node: self._leave_out("a bare storage"),
        }
        self._storages: dict[int, torch.UntypedStorage] = {}

    def build(self) -> Any:
        """The content of the file.

        Raises:
            RefusedError: If it is nested too deeply, or nothing in it can be read.
        """
        made = self._make(self.description.content)
        if made is LEFT_OUT:
            raise RefusedError(f"it holds {', '.join(self.left_out.values())}, not weights by their names")
        return made

    def _make(self, value: Any) -> Any:
        if type(value) in ATOMS:
            return value
        if (known := self._done.get(id(value))) is not None:
            return known[1]
        if len(self._path) > MOST_DEPTH:
            raise RefusedError(f"it is nested more than {MOST_DEPTH} deep")
        made = self._makers[type(value)](value)
        self._done[id(value)] = value, made
        return made

    def _within(self, key: Any, value: Any) -> Any:
        """Build an entry of a container."""
        if type(value) in ATOMS:
            return value
        self._path.append(key)
        made = self._make(value)
        self._path.pop()
        return made

    def _leave_out(self, what: str) -> Any:
        self.left_out[self._place()] = what
        return LEFT_OUT

    def _place(self) -> str:
        return ".".join(str(part)[:40] for part in self._path)

    # Containers

    def _members(self, values: Iterable[Any]) -> list[Any]:
        made = [self._within(index, value) for index, value in enumerate(values)]
        return [None if value is LEFT_OUT else value for value in made]

    def _list(self, value: list[Any]) -> list[Any]:
        # Register it first, as a list may contain itself.
        self._done[id(value)] = value, value
        value[:] = self._members(value)
        return value

    def _dictionary(self, value: Any) -> Any:
        self._done[id(value)] = value, value
        pairs = [(self._within("a key", key), self._within(key, entry)) for key, entry in value.items()]
        value.clear()
        for key, entry in pairs:
            if key is not LEFT_OUT and entry is not LEFT_OUT:
                value[key] = entry
        if hasattr(value, "_metadata"):
            versions = self._within("_metadata", value._metadata)
            if not isinstance(versions, dict) or not all(type(version) is dict for version in versions.values()):
                raise RefusedError("the versions of its layers are none")
            value._metadata = versions
        return value

    # Torch

    def _tensor(self, node: nodes.Tensor) -> Tensor:
        dtype = getattr(torch, node.dtype)
        if node.storage is None:
            tensor = torch.empty_strided(node.shape, node.stride, dtype=dtype, device="meta")
        else:
            storage = self._storage(node.storage)
            tensor = torch.empty(0, dtype=dtype).set_(storage, node.offset, node.shape, node.stride)
        learns = node.requires_grad and (dtype.is_floating_point or dtype.is_complex)
        return nn.Parameter(tensor, learns) if node.parameter else tensor.requires_grad_(learns)

    def _storage(self, node: nodes.Storage) -> torch.UntypedStorage:
        known = self._storages.get(id(node))
        if known is None:
            known = self._storages[id(node)] = stored(node, self.description.swapped)
        return known

    def _quantized(self, node: nodes.Quantized) -> Tensor:
        tensor = node.tensor
        assert tensor.storage is not None
        parameters = [self._make(value) for value in node.parameters]
        dtype, storage = getattr(torch, tensor.dtype), self._storage(tensor.storage)
        scheme = (getattr(torch, node.scheme), *parameters)
        view = (tensor.offset, tensor.shape, tensor.stride)
        # Torch's private function: there is no public way to make such a tensor from existing data.
        typed = cast(Any, torch.storage.TypedStorage)(wrap_storage=storage, dtype=dtype, _internal=True)
        return cast(Any, torch._utils)._rebuild_qtensor(typed, *view, scheme, tensor.requires_grad, OrderedDict())

    def _sparse(self, node: nodes.Sparse) -> Tensor:
        *indices, values = [self._make(part) for part in node.parts]
        if node.layout == "sparse_coo":
            return torch.sparse_coo_tensor(indices[0], values, node.shape, check_invariants=True)
        rows, columns = indices
        layout = getattr(torch, node.layout)
        return torch.sparse_compressed_tensor(rows, columns, values, node.shape, layout=layout, check_invariants=True)

    def _name(self, node: nodes.Name) -> Any:
        value = getattr(torch, node.full[len("torch.") :], None) if TORCH_VALUE.fullmatch(node.full) else None
        plain = isinstance(value, (torch.dtype, torch.layout, torch.qscheme))
        return value if plain else self._leave_out(node.full)

    # NumPy and Pillow

    def _dtype(self, node: nodes.Dtype) -> Any:
        return np.dtype(node.order + node.code) if node.plain else self._leave_out(f"numpy type {node.code}")

    def _array(self, node: nodes.Array) -> Any:
        if node.dtype is None or not node.dtype.plain:
            return self._leave_out(f"a numpy array of {'nothing' if node.dtype is None else node.dtype.code}")
        dtype = np.dtype(node.dtype.order + node.dtype.code)
        array = np.ndarray(node.shape, dtype, node.data, order="F" if node.fortran else "C").copy("K")
        return array[()] if node.scalar else array

    def _picture(self, node: nodes.Picture) -> Any:
        if not node.mode:
            return self._leave_out("a picture without pixels")
        picture = Image.frombytes(node.mode, node.size, node.data)
        if node.palette and node.mode == "P":
            picture.putpalette(node.palette)
        return picture

    # Objects of unknown classes

    def _object(self, node: nodes.Object) -> Any:
        if not _is_module(node):
            return self._leave_out(node.name)
        place = self._place()
        weights: OrderedDict[str, Tensor] = OrderedDict()
        classes: dict[str, None] = {}
        self._collect(node, "", weights, classes, 0)
        if quantised := [name for name in classes if ".quantized." in name]:
            raise RefusedError(f"{QUANTISED} (it has {first_ten(quantised)})")
        self.modules[place] = [*classes]
        return weights

    def _collect(
        self, node: nodes.Object, prefix: str, weights: dict[str, Tensor], classes: dict[str, None], depth: int
    ) -> None:
        """Add the parameters and buffers of a module and its submodules, with their names in its `state_dict`."""
        if depth > MOST_DEPTH:
            raise RefusedError(f"its modules are nested more than {MOST_DEPTH} deep")
        classes[node.name] = None
        non_persistent = node.state.get("_non_persistent_buffers_set") or ()
        for part in ("_parameters", "_buffers"):
            for name, value in _entries(node, part):
                self._parts += 1
                if type(value) in (nodes.Tensor, nodes.Quantized, nodes.Sparse) and name not in non_persistent:
                    weights[prefix + name] = self._make(value).detach()
        for name, module in _entries(node, "_modules"):
            self._parts += 1
            if self._parts > MOST_PARTS:
                raise RefusedError(f"its modules have more than {MOST_PARTS} parts")
            if type(module) is nodes.Object and _is_module(module):
                self._collect(module, f"{prefix}{name}.", weights, classes, depth + 1)


def _is_module(node: nodes.Object) -> bool:
    return isinstance(node.state, dict) and {"_parameters", "_modules"} <= {*node.state}


def _entries(node: nodes.Object, part: str) -> list[tuple[str, Any]]:
    entries = node.state.get(part)
    return [pair for pair in entries.items() if isinstance(pair[0], str)] if isinstance(entries, dict) else []


def _made(node: nodes.Made) -> Any:
    return torch.Size(node.arguments) if node.name == "torch.Size" else torch.device(*node.arguments)
