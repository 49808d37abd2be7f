"""Replacements for globals in a pickle: functions that check the arguments and make descriptions.

An unknown class gets a placeholder that holds its state; an unknown call is recorded and refused.
"""

from __future__ import annotations

import re
from collections import Counter, OrderedDict
from collections.abc import Callable
from typing import Any, NoReturn

from bdclean.inert.nodes import (
    ITEM_SIZES,
    Array,
    Dtype,
    Made,
    Name,
    Object,
    Picture,
    Quantized,
    RefusedError,
    Sparse,
    Storage,
    Tensor,
    integers,
)

LONGEST_KEY = 64
"""Maximum total number of values in a tuple that is a dictionary key."""
STORAGES = {
    "BoolStorage": "bool",
    "ByteStorage": "uint8",
    "CharStorage": "int8",
    "ShortStorage": "int16",
    "IntStorage": "int32",
    "LongStorage": "int64",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "FloatStorage": "float32",
    "DoubleStorage": "float64",
    "ComplexFloatStorage": "complex64",
    "ComplexDoubleStorage": "complex128",
    "QInt8Storage": "qint8",
    "QUInt8Storage": "quint8",
    "QInt32Storage": "qint32",
    "QUInt4x2Storage": "quint4x2",
    "QUInt2x4Storage": "quint2x4",
    "UntypedStorage": "uint8",
}
"""Maps classes of storages to the type of their elements."""
HARMLESS = re.compile(
    r"functools\.partial|collections\.(defaultdict|deque)|pathlib\.\w+|pathlib\._local\.\w+|datetime\.\w+|"
    r"types\.SimpleNamespace|decimal\.Decimal|uuid\.UUID|numpy\.random\._pickle\.\w+|builtins\.(range|slice)"
)
"""Functions that honest files call and that weights do not need: their results are placeholders."""
PICTURES = re.compile(r"PIL\.Image\.Image|PIL\.\w+ImagePlugin\.\w+ImageFile")
SPARSE = ("torch.sparse_coo", "torch.sparse_csr", "torch.sparse_csc", "torch.sparse_bsr", "torch.sparse_bsc")
SCHEMES = ("torch.per_tensor_affine", "torch.per_channel_affine", "torch.per_channel_affine_float_qparams")
PLAIN_DTYPE = re.compile(r"b1|[iu][1248]|f[248]|c8|c16|[US]\d{1,4}")
"""Types of numbers, and of strings of a fixed length, in numpy."""

Call = Callable[[tuple[Any, ...]], Any]


def canonical(module: str, name: str) -> str:
    """The current name of a global, which may come from Python 2 or an old numpy."""
    module = {"__builtin__": "builtins", "copy_reg": "copyreg"}.get(module, module)
    if module.startswith("numpy.core."):
        module = f"numpy._core.{module[len('numpy.core.') :]}"
    return f"{module}.{name}"


def checked_key(key: Any) -> Any:
    """Check a dictionary key or a member of a set, so that hashing it takes bounded time and depth.

    Raises:
        RefusedError: If it is not a plain value, or a tuple of few plain values.
    """
    kind = type(key)
    if kind is str or (kind is int and -(2**64) < key < 2**64):
        return key
    if kind is tuple:
        waiting, seen = [key], 0
        while waiting:
            one = waiting.pop()
            seen += 1
            if seen > LONGEST_KEY:
                raise RefusedError("a dictionary key with too many values")
            if type(one) is tuple:
                waiting.extend(one)
            else:
                checked_key(one)
        return key
    if kind not in (bool, int, float, bytes, type(None), complex, frozenset, Array, Made, Name, Object, Tensor):
        raise RefusedError(f"a dictionary key that is a {kind.__name__}")
    if kind is int:
        raise RefusedError("a dictionary key with too many digits")
    return key


def storage(persistent: Any) -> Storage:
    """The storage for a persistent id, without its data, which is found later.

    Raises:
        RefusedError: If it is not the id of a storage.
    """
    wrong = not isinstance(persistent, tuple) or len(persistent) not in (5, 6) or persistent[0] != "storage"
    if wrong or not isinstance(persistent[1], Name) or not isinstance(persistent[2], str):
        raise RefusedError("a persistent id that is not a storage")
    _, kind, key, _, count, *view = persistent
    module, _, name = kind.full.rpartition(".")
    if module not in ("torch", "torch.storage", "torch.cuda") or name not in STORAGES:
        raise RefusedError(f"a storage of {kind.full[:80]}")
    if view and view[0] is not None:
        raise RefusedError("a view of a storage, as PyTorch before 0.4 wrote them")
    dtype = STORAGES[name]
    return Storage(key, dtype, integers((count,))[0] * ITEM_SIZES[dtype])


def _wrong(what: str) -> NoReturn:
    raise RefusedError(f"{what} with invalid arguments")


def _dtype(name: Any) -> str:
    if not isinstance(name, Name) or not name.full.startswith("torch."):
        _wrong("a tensor")
    return name.full[len("torch.") :]


def _tensor(arguments: tuple[Any, ...]) -> Tensor:
    """A tensor, from storage, offset, shape, strides; since 0.4 also `requires_grad`, hooks, and metadata."""
    where, offset, shape, stride, requires_grad, _, metadata = (*arguments, False, None, None)[:7]
    if not isinstance(where, Storage):
        _wrong("a tensor")
    if metadata:
        raise RefusedError("a tensor that is a view of a conjugate or a negative")
    return Tensor(where, where.dtype, offset, _shape(shape), _shape(stride), requires_grad is True)


def _tensor_v3(arguments: tuple[Any, ...]) -> Tensor:
    where, offset, shape, stride, requires_grad, _, dtype, *metadata = arguments
    if not isinstance(where, Storage) or any(metadata):
        _wrong("a tensor")
    return Tensor(where, _dtype(dtype), offset, _shape(shape), _shape(stride), requires_grad is True)


def _meta(arguments: tuple[Any, ...]) -> Tensor:
    dtype, shape, stride, requires_grad = arguments
    return Tensor(None, _dtype(dtype), 0, _shape(shape), _shape(stride), requires_grad is True)


def _shape(value: Any) -> tuple[int, ...]:
    if isinstance(value, Made) and value.name == "torch.Size":
        return value.arguments
    return integers(value)


def _parameter(arguments: tuple[Any, ...]) -> Tensor:
    tensor, requires_grad = (*arguments, True)[:2]
    if not isinstance(tensor, Tensor):
        _wrong("a parameter")
    return Tensor(
        tensor.storage, tensor.dtype, tensor.offset, tensor.shape, tensor.stride, requires_grad is True, parameter=True
    )


def _with_state(arguments: tuple[Any, ...]) -> Tensor:
    """A parameter with attributes, which are ignored."""
    return _parameter(arguments[:2])


def _of_type(arguments: tuple[Any, ...]) -> Any:
    """A tensor of a subclass or with attributes, as an ordinary tensor."""
    function, _, parts, _ = arguments
    if not isinstance(function, Name) or not function.full.startswith("torch._utils.") or function.full not in CALLS:
        _wrong("a tensor of a subclass")
    return CALLS[function.full](parts)


def _sparse(arguments: tuple[Any, ...]) -> Sparse:
    layout, data = arguments
    if not isinstance(layout, Name) or layout.full not in SPARSE or not isinstance(data, tuple):
        _wrong("a sparse tensor")
    *parts, shape = [part for part in data if not isinstance(part, bool)]
    if not all(isinstance(part, Tensor) and part.storage is not None for part in parts):
        _wrong("a sparse tensor")
    if len(parts) != (2 if layout.full == SPARSE[0] else 3):
        _wrong("a sparse tensor")
    return Sparse(layout.full[len("torch.") :], tuple(parts), _shape(shape))


def _quantized(arguments: tuple[Any, ...]) -> Quantized:
    where, offset, shape, stride, scheme, requires_grad, _ = arguments
    name, *parameters = scheme
    if not isinstance(name, Name) or name.full not in SCHEMES or not isinstance(where, Storage):
        _wrong("a quantised tensor")
    kinds = (Tensor, Tensor, int) if "channel" in name.full else (float, int)
    if tuple(map(type, parameters)) != kinds:
        _wrong("a quantised tensor")
    tensor = Tensor(where, where.dtype, offset, _shape(shape), _shape(stride), requires_grad is True)
    return Quantized(tensor, name.full[len("torch.") :], tuple(parameters))


def _layout(arguments: tuple[Any, ...]) -> Name:
    (name,) = arguments
    return Name(name) if name in (*SPARSE, "torch.strided") else _wrong("a layout")


def _size(arguments: tuple[Any, ...]) -> Made:
    (shape,) = arguments
    return Made("torch.Size", integers(shape))


def _device(arguments: tuple[Any, ...]) -> Made:
    kind, *index = arguments
    if not isinstance(kind, str) or not re.fullmatch(r"[a-z]{1,20}(:\d{1,3})?", kind) or len(index) > 1:
        _wrong("a device")
    return Made("torch.device", (kind, *(number & 127 for number in integers(index))))


def _numpy_dtype(arguments: tuple[Any, ...]) -> Dtype:
    name = arguments[0]
    if not isinstance(name, str):
        _wrong("a numpy type")
    return Dtype(name[:20], bool(PLAIN_DTYPE.fullmatch(name)))


def _array(arguments: tuple[Any, ...]) -> Array | Object:
    kind = arguments[0]
    if not isinstance(kind, Name):
        _wrong("a numpy array")
    return Array() if kind.full == "numpy.ndarray" else Object(kind.full)


def _array_of_bytes(arguments: tuple[Any, ...]) -> Array:
    data, dtype, shape, order, *_ = arguments
    array = Array()
    array.fill(dtype, shape, order == "F", bytes(data) if isinstance(data, bytearray) else data)
    return array


def _scalar(arguments: tuple[Any, ...]) -> Array:
    dtype, data = (*arguments, b"")[:2]
    array = Array(scalar=True)
    array.fill(dtype, (), False, data)
    return array


def _encode(arguments: tuple[Any, ...]) -> bytes:
    """Bytes in protocol 2. Other codecs are refused, because some of them, applied repeatedly, fill any memory."""
    text, codec = arguments
    if type(text) is not str or codec not in ("latin1", "latin-1"):
        raise RefusedError("_codecs.encode of anything but latin1 text")
    return text.encode("latin1")


def _bytes(arguments: tuple[Any, ...]) -> bytes:
    return b"" if arguments == () else _wrong("bytes")


def _bytearray(arguments: tuple[Any, ...]) -> bytearray:
    data = arguments[0] if arguments else b""
    if type(data) is str and arguments[1:] == ("latin-1",):
        data = data.encode("latin1")
    if type(data) is not bytes:
        raise RefusedError("builtins.bytearray of other than bytes")
    return bytearray(data)


def _set(arguments: tuple[Any, ...]) -> set[Any]:
    (members,) = arguments or ([],)
    return set(map(checked_key, members)) if isinstance(members, (list, tuple)) else _wrong("a set")


def _frozenset(arguments: tuple[Any, ...]) -> frozenset[Any]:
    return frozenset(_set(arguments))


def _ordered(arguments: tuple[Any, ...]) -> OrderedDict[Any, Any]:
    (pairs,) = arguments or ([],)
    if not isinstance(pairs, (list, tuple)):
        _wrong("an OrderedDict")
    return OrderedDict((checked_key(key), value) for key, value in pairs)


def _counter(arguments: tuple[Any, ...]) -> Counter[Any]:
    (counts,) = arguments or ({},)
    if type(counts) is not dict or not all(type(value) is int for value in counts.values()):
        _wrong("a Counter")
    return Counter(counts)


def _complex(arguments: tuple[Any, ...]) -> complex:
    real, imaginary = arguments
    return complex(real, imaginary) if type(real) is type(imaginary) is float else _wrong("a complex number")


def _instance(arguments: tuple[Any, ...]) -> Object | Picture:
    """An object in protocols 0 and 1: its class, a base class, and the state of that."""
    kind = arguments[0]
    return new(kind, ()) if isinstance(kind, Name) else _wrong("an object")


def _by_size(arguments: tuple[Any, ...]) -> NoReturn:
    raise RefusedError("a storage that is given by its size, without elements in the file")


def new(kind: Name, arguments: tuple[Any, ...]) -> Any:
    """The placeholder for a new object of a class."""
    if PICTURES.fullmatch(kind.full):
        return Picture()
    return CALLS[kind.full](arguments) if kind.full in CALLS else Object(kind.full)


CALLS: dict[str, Call] = {
    **{f"{module}.{name}": _by_size for module in ("torch", "torch.storage") for name in (*STORAGES, "TypedStorage")},
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _tensor_v3,
    "torch._utils._rebuild_meta_tensor_no_storage": _meta,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _with_state,
    "torch._utils._rebuild_sparse_tensor": _sparse,
    "torch._utils._rebuild_qtensor": _quantized,
    "torch._tensor._rebuild_from_type_v2": _of_type,
    "torch.nn.parameter.Parameter": _parameter,
    "torch.serialization._get_layout": _layout,
    "torch.Size": _size,
    "torch.device": _device,
    "numpy.dtype": _numpy_dtype,
    "numpy._core.multiarray._reconstruct": _array,
    "numpy._core.multiarray.scalar": _scalar,
    "numpy._core.numeric._frombuffer": _array_of_bytes,
    "_codecs.encode": _encode,
    "builtins.bytes": _bytes,
    "builtins.bytearray": _bytearray,
    "builtins.set": _set,
    "builtins.frozenset": _frozenset,
    "builtins.complex": _complex,
    "collections.OrderedDict": _ordered,
    "collections.Counter": _counter,
    "copyreg._reconstructor": _instance,
}
"""Functions and classes that honest files call, and their replacements."""
