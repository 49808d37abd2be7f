"""Hundreds of mutated checkpoints: each ends in a clear error or a correct load, in bounded memory and time."""

import collections
import functools
import io
import json
import os
import pickle
import random
import re
import struct
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as safetensors_bytes

from bdclean.networks import build_network
from tests.fuzzing import mutated
from tests.judging import Case, judge_apart

MARK = "executed"


class Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (MARK,)


class Call:
    """An object whose pickle calls any function with any arguments."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self.function, self.arguments


def saved(content: Any, **options: Any) -> bytes:
    file = io.BytesIO()
    torch.save(content, file, **options)
    return file.getvalue()


def rezipped(data: bytes, change: Callable[[str, bytes], bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    """A checkpoint with changed entries."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, "w", compression) as new:
        for name in old.namelist():
            new.writestr(name, change(name, old.read(name)))
    return out.getvalue()


def in_pickle(data: bytes, old: bytes, new: bytes) -> bytes:
    return rezipped(data, lambda name, part: part.replace(old, new) if name.endswith("data.pkl") else part)


def cases() -> Iterator[Case]:
    """Yield name, suffix and content of each file."""
    torch.manual_seed(0)
    state = build_network("small_cnn", 10, 32).state_dict()
    own = torch.load("suspect.ckpt", weights_only=True)
    whole = Path("suspect.ckpt").read_bytes()
    plain, legacy = saved(state), saved({"net": state}, _use_new_zipfile_serialization=False)
    safe = safetensors_bytes({name: value.clone() for name, value in state.items()})
    formats = {".ckpt": whole, ".pt": plain, ".pth": legacy, ".safetensors": safe}
    yield from ((f"as it is, {suffix}", suffix, data) for suffix, data in formats.items())

    rng = random.Random(0)
    for suffix, data in formats.items():
        for number in range(10):
            yield f"cut {number}", suffix, data[: rng.randrange(len(data))]
        for number in range(20):
            flipped = bytearray(data)
            # Half of the changes at either end, where names and shapes are.
            for _ in range(rng.choice((1, 4, 64))):
                near = rng.choice((rng.randrange(4000), len(data) - 1 - rng.randrange(4000), rng.randrange(len(data))))
                flipped[near] ^= 1 << rng.randrange(8)
            yield f"flipped {number}", suffix, bytes(flipped)

    # Changes inside the pickle, with valid checksums.
    for number in range(30):
        place, bit = rng.random(), rng.randrange(8)

        def flip(name: str, part: bytes, place: float = place, bit: int = bit) -> bytes:
            index = int(place * len(part))
            return part[:index] + bytes([part[index] ^ (1 << bit)]) + part[index + 1 :] if "pkl" in name else part

        yield f"flipped in the pickle {number}", ".pt", rezipped(whole if number % 2 else plain, flip)

    dtypes = (torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.int8, torch.bool, torch.complex64)
    for dtype in (*dtypes, torch.float8_e5m2, torch.quint8):
        wrong = dict(state)
        wrong["0.weight"] = (
            torch.quantize_per_tensor(state["0.weight"], 0.1, 0, torch.quint8)
            if dtype == torch.quint8
            else state["0.weight"].to(dtype)
        )
        yield f"as {dtype}", ".pt", saved(wrong)
    for storage in (b"HalfStorage", b"LongStorage", b"ByteStorage", b"DoubleStorage", b"BoolStorage", b"NoStorage"):
        yield f"swapped for {storage!r}", ".pt", in_pickle(plain, b"FloatStorage", storage)
    for value in (float("nan"), float("inf"), -float("inf")):
        for name in ("0.weight", "1.running_var", "20.bias"):
            bad = {key: tensor.clone() for key, tensor in state.items()}
            bad[name].view(-1)[0] = value
            yield f"{value} in {name}", ".pt", saved(bad)
            yield f"{value} in {name}, safe", ".safetensors", safetensors_bytes(bad)

    # Bombs: compressed entries, claimed shapes, objects that allocate memory, nested encodings.
    big = rezipped(plain, lambda name, part: bytes(200 << 20) if name.endswith("/0") else part, zipfile.ZIP_DEFLATED)
    yield "a zip bomb", ".pt", big
    yield "a bomb beside the numbers", ".pt", rezipped(plain, lambda n, p: p, zipfile.ZIP_DEFLATED)
    for exponent in (20, 31, 33, 40, 62):
        shape = b"\x8a\x09" + struct.pack("<q", 1 << exponent) + b"\x00"
        yield (
            f"2^{exponent} filters",
            ".pt",
            in_pickle(plain, b"(K\x10K\x03K\x03K\x03t", b"(" + shape + b"K\x03K\x03K\x03t"),
        )
        yield (
            f"2^{exponent} strides",
            ".pt",
            in_pickle(plain, b"(K\x1bK\x09K\x03K\x01t", b"(" + shape + b"K\x09K\x03K\x01t"),
        )
        yield f"2^{exponent} numbers stored", ".pt", in_pickle(plain, b"M\xb0\x01t", shape + b"t")
        yield f"2^{exponent} numbers in the old format", ".pth", legacy.replace(b"M\xb0\x01", shape)
        header = json.dumps({"w": {"dtype": "F32", "shape": [1 << exponent, 4], "data_offsets": [0, 16]}}).encode()
        yield f"2^{exponent} rows, safe", ".safetensors", struct.pack("<Q", len(header)) + header + bytes(16)
        yield f"2^{exponent} bytes of header", ".safetensors", struct.pack("<Q", 1 << exponent) + header
        yield f"expanded to 2^{exponent}", ".pt", saved(state | {"0.weight": torch.zeros(1).expand(1 << exponent)})
    for function, arguments in (
        (bytearray, (1 << 40,)),
        (torch.Tensor, (1 << 40,)),
        (torch.FloatTensor, (1 << 40,)),
        (os.system, ("true",)),
        (eval, ("1",)),
        (getattr, ("os", "system")),
    ):
        yield f"calls {function.__name__}", ".pt", saved({"state_dict": state, "x": Call(function, *arguments)})
    chain = b"\x80\x02c_codecs\nencode\nq\x00X\x01\x00\x00\x00aX\x06\x00\x00\x00latin1\x86R"
    grown = chain + b"q\x01" + b"".join(b"h\x00h\x01X\x03\x00\x00\x00hex\x86Rq\x01" for _ in range(60)) + b"."
    yield "encodings of encodings", ".pt", rezipped(plain, lambda n, p: grown if n.endswith("data.pkl") else p)
    nested = b"\x80\x02" + 100_000 * b"]" + 99_999 * b"a" + b"."
    yield "nested without end", ".pt", rezipped(plain, lambda n, p: nested if n.endswith("data.pkl") else p)
    dicts = b"\x80\x02" + 50_000 * b"}X\x01\x00\x00\x00a" + b"}" + 50_000 * b"s" + b"."
    yield "dictionaries without end", ".pt", rezipped(plain, lambda n, p: dicts if n.endswith("data.pkl") else p)
    yield "a bomb", ".pt", saved({"state_dict": Bomb()})
    yield "a bomb in the old format", ".pth", saved({"a": Bomb()}, _use_new_zipfile_serialization=False)
    yield "a bomb, protocol 4", ".pt", saved({"a": Bomb()}, pickle_protocol=4)
    yield "a bare pickle", ".bin", pickle.dumps(Bomb())
    yield "a whole module", ".pt", saved(torch.nn.Linear(3, 3))
    yield "a script", ".pt", Path("script.pt").read_bytes()
    yield "a bomb as safetensors", ".safetensors", pickle.dumps(Bomb())

    # Plain values of the wrong kind.
    endless: list[Any] = []
    endless.append(endless)
    deep: Any = {}
    for _ in range(100):
        deep = {"a": deep}
    strange = [
        endless,
        deep,
        "../../etc/passwd",
        "a" * 100_000,
        -1,
        1 << 70,
        float("nan"),
        {"class_path": "os.system"},
        b"\0",
    ]
    for number, value in enumerate(strange):
        for part in ("hyper_parameters", "datamodule_hyper_parameters"):
            for key in ("arch", "image_size", "attack_options", "arch_kwargs", "source"):
                if key in own[part] or key == "arch_kwargs":
                    yield f"{part}.{key} {number}", ".ckpt", saved(own | {part: own[part] | {key: value}})
        yield f"state_dict {number}", ".pt", saved({"state_dict": value})
        yield f"bdclean {number}", ".pt", saved({"bdclean": value, "state_dict": state, "hyper_parameters": value})
    for share in (30, 3000):
        yield f"{share} views of the same", ".pt", saved(state | {f"x{i}": state["15.weight"] for i in range(share)})
    for _ in range(40):
        deep = {"a": deep, "b": deep}
    deep["a"] = deep
    yield "dictionaries in each other", ".pt", saved({"net": state, "x": deep})
    for name in (
        "../../x",
        "/etc/passwd",
        "C:\\x",
        "a\0b",
        "\x1b[31m",
        "",
        "a/b",
        "." * 3000,
        "__class__",
        "network.0",
    ):
        yield f"a tensor called {name[:9]!r}", ".pt", saved({name: torch.ones(2, 2)})
        yield f"more called {name[:9]!r}", ".pt", saved(state | {name: torch.ones(2, 2)})
        yield f"safe, called {name[:9]!r}", ".safetensors", safetensors_bytes({name: torch.ones(2, 2)})
        bench = {"model_name": name, "num_classes": 10, "model": state, "img_size": [32, 32, 3], "clean_data": name}
        rows = {0: {"path": name, "other_info": [0, 1]}}
        yield f"bench {name[:9]!r}", ".pt", saved(bench | {"bd_test": {"bd_data_container": {"data_dict": rows}}})


def test_almost_checkpoints(tiny_suspect: Path) -> None:
    """Two thousand files with mutated structure: none crashes the reader, or is read as something else.

    `FUZZ_FILES=20000 pytest -n 0 -s tests/test_fuzz.py -k almost` makes 20,000 files, and counts the outcomes.
    """
    count = int(os.environ.get("FUZZ_FILES", "2000"))
    Path("suspect.ckpt").write_bytes(tiny_suspect.read_bytes())
    own = torch.load("suspect.ckpt", weights_only=True)

    def made(first: int) -> Iterator[Case]:
        return ((str(number), *mutated(number, own)) for number in range(first, count))

    outcomes: list[tuple[str, str, float, int]] = []
    died = []
    while len(outcomes) + len(died) < count:
        ended = judge_apart(functools.partial(made, len(outcomes) + len(died)), 4)
        outcomes = [json.loads(line) for line in Path("outcomes").read_text().splitlines()]
        if ended:
            died.append(f"{len(outcomes) + len(died)}: {ended}")
    failed = [f"{name}: {outcome}" for name, outcome, _, _ in outcomes if outcome.startswith("FAILED")]
    kinds = collections.Counter(kind(outcome) for _, outcome, _, _ in outcomes)
    slowest = max(seconds for _, _, seconds, _ in outcomes)
    grown = max(memory for *_, memory in outcomes)
    print(f"{count} files, slowest {slowest:.2f} s, {grown >> 10} MiB, {len(died)} died, {len(failed)} failed")
    print(*(f"{number:6} {reason}" for reason, number in kinds.most_common()), sep="\n")
    assert not died
    assert not failed, failed
    assert not Path(MARK).exists()
    assert kinds["loaded"] > count / 40
    assert kinds["read"] > count / 10
    assert len(kinds) > 20


def kind(outcome: str) -> str:
    """A message without the parts that differ between files."""
    text = re.sub(r"^\w+( \S+)?: |\(.*|'.*?'|\d+|: .*", "", outcome.replace("not a readable checkpoint: ", ""))
    return " ".join(text.split())[:60]


def test_mutated_files(tiny_suspect: Path) -> None:
    Path("suspect.ckpt").write_bytes(tiny_suspect.read_bytes())
    torch.jit.save(torch.jit.script(torch.nn.Linear(3, 3)), "script.pt")
    assert judge_apart(cases) == 0
    outcomes = {name: outcome for name, outcome, *_ in map(json.loads, Path("outcomes").read_text().splitlines())}
    failed = {name: outcome for name, outcome in outcomes.items() if outcome.startswith("FAILED")}
    assert not failed
    assert len(outcomes) > 300
    assert not Path(MARK).exists()
    loaded = {name for name, outcome in outcomes.items() if outcome == "loaded"}
    assert {f"as it is, {suffix}{suffix}" for suffix in (".ckpt", ".pt", ".pth", ".safetensors")} <= loaded
    assert {f"as torch.{name}.pt" for name in ("float16", "bfloat16", "float64", "float8_e5m2")} <= loaded
    for name, reason in {
        "nan in 0.weight.pt": "not all numbers are finite",
        "inf in 1.running_var, safe.safetensors": "not all numbers are finite",
        "as torch.int64.pt": "0.weight holds torch.int64",
        "a zip bomb.pt": "unpacks to",
        "calls bytearray.pt": "builtins.bytearray",
        "calls system.pt": "posix.system",
        "encodings of encodings.pt": "_codecs.encode",
        "a bomb, protocol 4.pt": "posix.mkdir",
        "a bomb in the old format.pth": "posix.mkdir",
        "a whole module.pt": "fits no known network",
        "a script.pt": "TorchScript",
        "3000 views of the same.pt": "bytes of weights and holds",
    }.items():
        assert reason in outcomes[name], outcomes[name]
