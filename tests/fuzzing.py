"""Mutated checkpoints: each file is made from its number, and mutated in its structure."""

from __future__ import annotations

import argparse
import io
import json
import pickle
import pickletools
import random
import struct
import zipfile
from collections import Counter, OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save as save_safetensors
from torch import nn

Content = Any
INTEGERS = (0, 1, -1, 2, 255, 256, 2**16, 2**31 - 1, 2**31, 2**33, 2**40, 2**62, 2**63, 2**64, -(2**63), 10**30)
CALLED = {
    "posix": "system",
    "builtins": "eval bytearray getattr bytes set",
    "torch": "FloatStorage Tensor Size device float32 per_tensor_affine",
    "torch.storage": "TypedStorage UntypedStorage _load_from_bytes",
    "torch._utils": "_rebuild_tensor _rebuild_tensor_v2 _rebuild_tensor_v3 _rebuild_qtensor _rebuild_sparse_tensor "
    "_rebuild_parameter _rebuild_meta_tensor_no_storage",
    "torch._tensor": "_rebuild_from_type_v2",
    "torch.serialization": "_get_layout",
    "torch.nn.modules.linear": "Linear",
    "numpy": "ndarray dtype",
    "numpy.core.multiarray": "_reconstruct scalar",
    "numpy._core.numeric": "_frombuffer",
    "PIL.Image": "Image",
    "_codecs": "encode",
    "collections": "OrderedDict Counter",
    "copyreg": "_reconstructor",
    "argparse": "Namespace",
    "functools": "partial",
    "__main__": "Net",
}
NAMES = [f"{module}\n{name}\n".encode() for module, names in CALLED.items() for name in names.split()]
TEXTS = (
    *("", "latin1", "hex", "hex-", "zlib", "storage", "module", "cpu", "0", "1", "f8", "O8", "V8", "U9", "<", "|"),
    *("state_dict", "items", "_metadata", "__class__", "../../x", "\x00", "\x1b[31m", "x" * 5000, "sparse_coo"),
)
LETTERS = b"RbQ(tuse a012}])N.\x81\x8f\x90\x91\x85\x86\x93\x94"
"""Operations without arguments."""


class Calls:
    """An object whose pickle calls any function with any arguments."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self.function, self.arguments


def nested(depth: int, wrap: Callable[[Any], Any]) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = wrap(value)
    return value


def beside(rng: random.Random) -> Any:
    """A value beside the weights, harmless or not."""
    endless: list[Any] = []
    endless.append(endless)
    choices: tuple[Callable[[], Any], ...] = (
        lambda: np.dtype(rng.choice(("f4", "i8", ">f8", "U3", "O", "f4,i4"))),
        lambda: np.arange(rng.randrange(5.0), dtype=rng.choice((float, np.int8, ">i4"))),
        lambda: np.array(["a", None], dtype=object),
        lambda: np.float64(rng.random()),
        lambda: Image.new(rng.choice(("RGB", "L", "P", "1", "CMYK")), (3, 2)),
        lambda: argparse.Namespace(lr=0.1, path="x"),
        lambda: nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)),
        lambda: OrderedDict(a=1),
        lambda: Counter({3: 1}),
        lambda: {1, "a", (2, 3)},
        lambda: torch.eye(3).to_sparse(),
        lambda: torch.quantize_per_tensor(torch.eye(3), 0.1, 0, torch.quint8),
        lambda: torch.empty(3, device="meta"),
        lambda: torch.zeros(1).expand(rng.choice((3, 10**6, 2**40))),
        lambda: torch.arange(6.0)[::2],
        lambda: nn.Parameter(torch.ones(2, dtype=rng.choice((torch.float16, torch.bfloat16, torch.complex64)))),
        lambda: torch.device("cuda:1"),
        lambda: torch.Size([2, 3]),
        lambda: torch.float16,
        lambda: rng.choice((b"", b"bytes", bytearray(b"x"), 1 + 2j, 2**100, float("nan"), frozenset({1}))),
        lambda: nested(rng.choice((3, 90, 450, 900)), rng.choice((lambda v: [v], lambda v: {"a": v}, lambda v: (v,)))),
        lambda: {nested(rng.choice((1, 3, 300)), lambda v: (v,)): 1},
        lambda: endless,
        lambda: Calls(rng.choice((bytearray, bytes, np.ndarray, torch.FloatTensor, len)), rng.choice(INTEGERS)),
        lambda: [rng.choice(INTEGERS) for _ in range(rng.randrange(50))],
    )
    return rng.choice(choices)()


def odd(rng: random.Random) -> Any:
    """A value of the wrong kind."""
    plain = (None, True, 0.5, -1e308, 1e-45, float("inf"), [], [1, 2], (1, 2), {}, {"class_path": "os.system"})
    return rng.choice((*INTEGERS, *TEXTS, *plain)) if rng.random() < 0.8 else beside(rng)


def content(rng: random.Random, own: Content) -> Content:
    """The content of a file: a checkpoint of bdclean or of another program, with odd entries."""
    state = OrderedDict(own["state_dict"])
    kind = rng.randrange(4)
    if kind == 0:
        made: dict[str, Any] = {key: dict(value) if type(value) is dict else value for key, value in own.items()}
        for _ in range(rng.randrange(3)):
            part = rng.choice(("hyper_parameters", "datamodule_hyper_parameters"))
            made[part][rng.choice((*made[part], "arch_kwargs", "extra"))] = odd(rng)
        if rng.random() < 0.3:
            options = dict(own["datamodule_hyper_parameters"]["attack_options"])
            options[rng.choice((*options, "width", "k"))] = odd(rng)
            made["datamodule_hyper_parameters"]["attack_options"] = options
            made["datamodule_hyper_parameters"]["attack"] = rng.choice(("BadNets", "LIRA", "WaNet", "Blended", "SSBA"))
    elif kind == 1:
        made = state
    elif kind == 2:
        made = {"net": state, "epoch": 3}
    else:
        made = {"model_name": "preactresnet18", "num_classes": 10, "model": state, "img_size": [32, 32, 3]}
        made |= {"clean_data": odd(rng), "bd_test": {"bd_data_container": {"data_dict": {0: odd(rng)}}}}
    for number in range(rng.choice((0, 0, 1, 3))):
        made[f"x{number}"] = beside(rng)
    if rng.random() < 0.2:
        name, dtype = rng.choice([*own["state_dict"]]), rng.choice((torch.float16, torch.int64))
        state[name] = odd(rng) if rng.random() < 0.5 else own["state_dict"][name].to(dtype)
    return made


def saved(rng: random.Random, made: Content) -> tuple[str, bytes]:
    """Suffix and bytes of a file, in one of the formats."""
    file = io.BytesIO()
    form = rng.randrange(10)
    try:
        if form == 0:
            state = next(part for part in (*made.values(), made) if isinstance(part, dict) and "0.weight" in part)
            weights = {name: value.clone() for name, value in state.items() if isinstance(value, torch.Tensor)}
            return ".safetensors", save_safetensors(weights)
        if form == 1:
            pickle.dump(made, file, rng.choice((2, 4, 5)))
        else:
            torch.save(made, file, pickle_protocol=rng.choice((2, 2, 4, 5)), _use_new_zipfile_serialization=form > 3)
    except Exception:  # not everything can be written
        return ".bin", b"\x80\x02}."
    return rng.choice((".pt", ".pth", ".ckpt")), file.getvalue()


# Mutations


def operations(code: bytes) -> list[bytes]:
    """The operations of a pickle, each with its argument."""
    places = [place for _, _, place in pickletools.genops(code)]
    return [code[a:b] for a, b in zip(places, [*places[1:], len(code)], strict=True)]


def operation(rng: random.Random) -> bytes:
    """Any operation, with any argument."""
    number = struct.pack("<q", rng.choice([value for value in INTEGERS if -(2**63) <= value < 2**63]))
    text, name, byte = rng.choice(TEXTS).encode(), rng.choice(NAMES), bytes([rng.randrange(256)])
    sized = rng.choice((len(text), len(text), 2**31)).to_bytes(4, "little")
    choices = (b"\x8a\x08" + number, b"X" + sized + text, b"c" + name, b"c" + name + b"(tR", b"c" + name + b")\x81}b")
    choices += (b"h" + byte, b"q" + byte, b"\x85" * 2000, b"I1" + b"9" * 50 + b"\n", b"\x96" + number, b"\x95" + number)
    choices += (b"i" + name, b"G" + struct.pack(">d", 1e308), byte)
    return rng.choice(choices) if rng.random() < 0.5 else bytes([rng.choice(LETTERS)])


def in_pickle(rng: random.Random, code: bytes) -> bytes:
    """A pickle with some operations changed, moved, repeated, left out or put in."""
    try:
        parts = operations(code)
    except ValueError:
        return code
    for _ in range(rng.choice((1, 1, 2, 8))):
        here, there = rng.randrange(len(parts)), rng.randrange(len(parts))
        change = rng.randrange(5)
        if change == 0:
            parts[here] = operation(rng)
        elif change == 1:
            parts.insert(here, operation(rng))
        elif change == 2:
            del parts[here]
            parts = parts or [b"."]
        elif change == 3:
            parts[here], parts[there] = parts[there], parts[here]
        else:
            parts[here:here] = [part for part in parts[there : there + rng.randrange(20)] if len(part) < 1000] * 20
    return b"".join(parts)


def in_archive(rng: random.Random, data: bytes) -> bytes:
    """An archive with members renamed, cut, swapped, left out, repeated, compressed, or a changed pickle."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as old:
            members = [(name, old.read(name)) for name in old.namelist()]
    except Exception:  # it was changed before
        return data
    here, there = rng.randrange(len(members)), rng.randrange(len(members))
    name, part = members[here]
    pickled = next((index for index, (name, _) in enumerate(members) if name.endswith("data.pkl")), here)
    root = name.partition("/")[0]
    added = rng.choice(("constants.pkl", "code/a.py", "DATA.PKL", "x.pkl", "byteorder"))
    change = rng.randrange(12)
    if change < 6:
        members[pickled] = members[pickled][0], in_pickle(rng, members[pickled][1])
    elif change == 6:
        members[here] = rng.choice((name.upper(), f"x/{name}", f"../{name}", f"{name}\0", f"é{name}")), part
    elif change == 7:
        members[here] = name, part[: rng.randrange(len(part) + 1)]
    elif change == 8:
        members[here] = name, members[there][1]
    elif change == 9:
        members.pop(here)
    elif change == 10:
        members.append(members[here])
    else:
        members.append((f"{root}/{added}", rng.choice((part, b"big", b"little"))))
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", rng.choice((zipfile.ZIP_STORED,) * 9 + (zipfile.ZIP_DEFLATED,))) as new:
        for member, stored in members:
            new.writestr(member, stored)
    return out.getvalue()


def in_bytes(rng: random.Random, data: bytes) -> bytes:
    """Bytes flipped, mostly where names and sizes are, or cut off."""
    if rng.random() < 0.2:
        return data[: rng.randrange(len(data) + 1)]
    flipped = bytearray(data)
    for _ in range(rng.choice((1, 4, 64))):
        near = min(len(data), 4000)
        place = rng.choice((rng.randrange(near), len(data) - 1 - rng.randrange(near), rng.randrange(len(data))))
        flipped[place] = rng.randrange(256)
    return bytes(flipped)


def in_header(rng: random.Random, data: bytes) -> bytes:
    """A safetensors file with another header."""
    (length,) = struct.unpack("<Q", data[:8])
    try:
        header = json.loads(data[8 : 8 + length])
    except ValueError:  # it was changed before
        return data
    entry = header[rng.choice([*header])]
    value = rng.choice(("F64", "I8", [2**62, 4], [0, 2**40], [-1], None))
    entry[rng.choice(("dtype", "shape", "data_offsets", "x"))] = value
    changed = json.dumps(header).encode()
    claimed = len(changed) if rng.random() < 0.8 else rng.choice((0, 2**20, 2**40, 2**63))
    return struct.pack("<Q", claimed) + changed + data[8 + length :]


def mutated(number: int, own: Content) -> tuple[str, bytes]:
    """Suffix and bytes of the file with a number; deterministic."""
    rng = random.Random(number)
    suffix, data = saved(rng, content(rng, own))
    for _ in range(rng.choice((0, 0, 1, 1, 2))):
        if rng.random() < 0.15:
            data = in_bytes(rng, data)
        elif data[:2] == b"PK":
            data = in_archive(rng, data)
        elif suffix == ".safetensors":
            data = in_header(rng, data)
        else:
            data = in_pickle(rng, data)
    return suffix, data or b"\0"
