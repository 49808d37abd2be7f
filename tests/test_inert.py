"""Reading files of PyTorch without running code: the result equals torch's, and all other files are refused."""

import argparse
import io
import os
import pickle
import struct
import subprocess
import sys
import threading
import zipfile
from collections import Counter, OrderedDict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bdclean import InputError
from bdclean.checkpoint.files import load
from bdclean.errors import Given
from bdclean.inert import child, guard
from bdclean.inert.containers import parse
from bdclean.inert.nodes import RefusedError
from tests.fuzzing import Calls


def same(a: Any, b: Any) -> bool:
    if isinstance(b, Tensor):
        kind = type(a) is type(b) and a.dtype == b.dtype and a.shape == b.shape and a.layout == b.layout
        kind = kind and a.requires_grad == b.requires_grad and (a.layout != torch.strided or a.stride() == b.stride())
        if b.device.type == "meta" or not kind:
            return kind
        if b.is_quantized:
            return a.q_scale() == b.q_scale() and torch.equal(a.int_repr(), b.int_repr())
        if b.layout != torch.strided:
            return torch.equal(a.to_dense(), b.to_dense())
        number = f"uint{8 * b.element_size()}"
        bits = getattr(torch, number) if b.element_size() < 8 else torch.int64
        return a.stride() == b.stride() and (
            b.is_complex() or torch.equal(a.detach().view(bits), b.detach().view(bits))
        )
    return type(a) is type(b) and (np.array_equal(a, b) and a.dtype == b.dtype if isinstance(b, np.ndarray) else a == b)


DTYPES = (
    *(torch.float16, torch.bfloat16, torch.float64, torch.float8_e4m3fn, torch.float8_e5m2),
    *(
        torch.int8,
        torch.int16,
        torch.int32,
        torch.int64,
        torch.uint8,
        torch.uint16,
        torch.uint32,
        torch.uint64,
        torch.bool,
    ),
)
HONEST: dict[str, Any] = {
    **{f"{t}".removeprefix("torch."): torch.arange(6).to(t) for t in (torch.float16, torch.bfloat16, torch.float64)},
    **{
        f"{t}".removeprefix("torch."): torch.arange(6).to(t)
        for t in (torch.int8, torch.int16, torch.int32, torch.uint8)
    },
    **{f"{t}".removeprefix("torch."): torch.arange(6).to(t) for t in (torch.uint16, torch.uint32, torch.bool)},
    "float8": torch.arange(6.0).to(torch.float8_e4m3fn),
    "complex": torch.arange(6).to(torch.complex64),
    "strided": torch.arange(24.0).view(4, 6)[1:, ::2].t(),
    "expanded": torch.arange(3.0).expand(5, 3),
    "number": torch.tensor(3.0),
    "nothing": torch.zeros(0, 3),
    "parameter": nn.Parameter(torch.ones(2)),
    "constant": nn.Parameter(torch.ones(2), requires_grad=False),
    "gradient": torch.ones(2, requires_grad=True),
    "sparse": torch.eye(3).to_sparse(),
    "quantized": torch.quantize_per_tensor(torch.arange(9.0).view(3, 3), 0.1, 3, torch.quint8),
    "meta": torch.empty(3, 4, device="meta"),
    "numpy": np.arange(6.0).reshape(2, 3).T,
    "swapped": np.arange(3, dtype=">i4"),
    "texts": np.array(["cat", "horse"]),
    "dtype": np.dtype("float32"),
    "scalar": np.float64(0.5),
    "keys": {np.int64(3): 1, (1, "a"): 2, None: 3, 2.5: 4, True: 5},
    "containers": [{1, 2}, (1, [2, (3,)]), Counter({3: 1}), OrderedDict(b=1, a=2), frozenset({4})],
    "values": [
        None,
        True,
        -1,
        2**70,
        -(2**31),
        1e300,
        float("inf"),
        1 + 2j,
        "ä\n\U0001f600",
        b"\0\xff",
        b"",
        bytearray(b"x"),
    ],
    "torch": [torch.float16, torch.device("cuda:1"), torch.device("cpu"), torch.Size([2, 3]), torch.strided],
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "form", ["zip", "zip, protocol 4", "zip, protocol 5", "legacy", "pickle", "pickle, protocol 5"]
)
@pytest.mark.parametrize("name", HONEST)
def test_honest_files_are_read_as_by_torch(name: str, form: str) -> None:
    value = {"it": HONEST[name], "again": HONEST[name]}
    protocol = int(form[-1]) if "protocol" in form else 2
    if form.startswith("dump"):
        Path("file.pt").write_bytes(pickle.dumps(value, protocol))
    else:
        torch.save(value, "file.pt", pickle_protocol=protocol, _use_new_zipfile_serialization="zip" in form)
    loaded = load("file.pt", Given("ckpt", "file.pt"))
    assert not loaded.notes
    assert same(loaded.content["it"], value["it"])
    assert same(loaded.content["again"], value["it"])


def test_shared_memory_stays_shared() -> None:
    base = torch.arange(12.0)
    torch.save({"a": base[:6], "b": base[3:].view(3, 3), "c": base}, "file.pt")
    content = load("file.pt", Given("ckpt", "file.pt")).content
    content["c"].zero_()
    assert not content["a"].any()
    assert not content["b"].any()


def test_the_other_byte_order() -> None:
    state = {"w": torch.arange(6.0).view(2, 3), "c": torch.tensor([1 + 2j]), "b": torch.tensor([True])}
    torch.save(state, "file.pt")
    with zipfile.ZipFile("file.pt") as old, zipfile.ZipFile("big.pt", "w") as new:
        for name in old.namelist():
            data, size = old.read(name), {"0": 4, "1": 4, "2": 1}.get(name.rpartition("/")[2])
            if "/data/" in name and size:
                data = np.frombuffer(data, f"u{size}").byteswap().tobytes()
            new.writestr(name, b"big" if name.endswith("byteorder") else data)
    assert all(
        torch.equal(value, state[name]) for name, value in load("big.pt", Given("ckpt", "big.pt")).content.items()
    )


class Net(nn.Module):
    """A network whose class does not exist where the file is read."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
        self.head = nn.Linear(4, 2)
        self.twice = self.head
        self.register_buffer("passing", torch.ones(1), persistent=False)
        self.register_buffer("lasting", torch.ones(1))
        self.act, self.names = torch.nn.functional.relu, ["cat", "dog"]

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.features(images).mean((2, 3)))


@pytest.fixture(scope="module")
def strangers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with files of classes that this process cannot import."""
    folder = tmp_path_factory.mktemp("strangers")
    code = Path(__file__).read_text().partition("class Net(nn.Module)")[2].partition("\n\n\n@pytest")[0]
    script = (
        f"import torch\nfrom torch import Tensor, nn\nclass Net(nn.Module){code}\ntorch.manual_seed(0)\nnet = Net()\n"
    )
    script += (
        "torch.save(net, 'whole.pth')\ntorch.save({'net': net, 'epoch': 3}, 'inside.pth')\n"
        "torch.save(net, 'legacy.pth', _use_new_zipfile_serialization=False)\n"
        "torch.save(net.state_dict(), 'state.pt')\n"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", script], check=True, cwd=folder)
    return folder


@pytest.mark.parametrize(("name", "place"), [("whole.pth", ""), ("inside.pth", "net"), ("legacy.pth", "")])
def test_weights_are_read_from_pickled_modules(name: str, place: str, strangers: Path) -> None:
    loaded = load(str(strangers / name), Given("ckpt", name))
    weights = loaded.content[place] if place else loaded.content
    state = torch.load(strangers / "state.pt", weights_only=True)
    assert list(weights) == list(state)
    assert all(torch.equal(value, state[name]) for name, value in weights.items())
    (note,) = loaded.notes
    assert "a whole pickled module" in note
    assert "__main__.Net" in note
    assert "plain state_dict" in note
    torch.save(loaded.content, "again.pt")
    torch.load("again.pt", weights_only=True)


def test_cyclic_modules_are_refused() -> None:
    module = nn.Sequential(nn.Linear(2, 2))
    for _ in range(40):
        module = nn.Sequential(module, module)
    torch.save(module, "maze.pt")
    with pytest.raises(InputError, match="its modules have more than 100000 parts"):
        load("maze.pt", Given("ckpt", "maze.pt"))


def test_objects_beside_the_weights_are_ignored_and_named() -> None:
    weights = nn.Linear(2, 2).state_dict()
    beside = {
        "args": argparse.Namespace(lr=0.1, out=Path("x")),
        "log": [np.array([None]), 3],
        "loss": nn.functional.relu,
    }
    torch.save({"net": weights, **beside}, "file.pt")
    loaded = load("file.pt", Given("ckpt", "file.pt"))
    assert list(loaded.content) == ["net", "log"]
    assert loaded.content["log"] == [None, 3]
    (note,) = loaded.notes
    for what in (
        "argparse.Namespace under 'args'",
        "numpy array of O8 under 'log.0'",
        "torch.nn.functional.relu under 'loss'",
    ):
        assert what in note


def pickled(code: bytes, **members: bytes) -> str:
    """A file whose pickle is some code."""
    with zipfile.ZipFile("file.pt", "w") as archive:
        archive.writestr("a/data.pkl", b"\x80\x02" + code + b".")
        for name, data in members.items():
            archive.writestr(f"a/data/{name}", data)
    return "file.pt"


def called(name: str, *arguments: bytes) -> bytes:
    return b"c" + name.replace(" ", "\n").encode() + b"\n(" + b"".join(arguments) + b"tR"


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def integer(value: int) -> bytes:
    return b"\x8a\x09" + value.to_bytes(9, "little", signed=True)


def stored(key: str, count: int, kind: str = "FloatStorage") -> bytes:
    return b"(" + text("storage") + f"ctorch\n{kind}\n".encode() + text(key) + text("cpu") + integer(count) + b"tQ"


def viewed(count: int, offset: int, shape: tuple[int, ...], stride: tuple[int, ...]) -> bytes:
    sizes = (b"(" + b"".join(map(integer, numbers)) + b"t" for numbers in (shape, stride))
    return called("torch._utils _rebuild_tensor", stored("0", count), integer(offset), *sizes)


ENCODED = called("_codecs encode", text("a" * 10_000), text("latin1"))
HOSTILE = {
    "a storage that claims more": viewed(2**33, 0, (2,), (1,)),
    "a tensor beyond its storage": viewed(4, 2, (3,), (1,)),
    "an offset beyond its storage": viewed(4, 5, (0,), (1,)),
    "strides beyond its storage": viewed(4, 0, (2, 2), (2**62, 1)),
    "a negative stride": viewed(4, 3, (4,), (-1,)),
    "a shape of billions": viewed(4, 0, (2**40,), (0,)),
    "a shape beyond 64 bits": viewed(4, 0, (2**62, 2**62), (0, 0)),
    "a shape of many dimensions": viewed(4, 0, (1,) * 100, (1,) * 100),
    "a storage of no such type": stored("0", 4, "NoStorage"),
    "a storage by its size": called("torch FloatStorage", integer(2**40)),
    "an array by its size": called("numpy ndarray", b"(" + integer(2**40) + b"t"),
    "an array of fewer bytes": b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85U\x01bt"
    + b"R(K\x01" + integer(2**33) + b"\x85" + called("numpy dtype", text("f8")) + b"\x89" + ENCODED + b"tb",
    "a bytearray by its size": called("builtins bytearray", integer(2**40)),
    "bytes by their size": called("builtins bytes", integer(2**40)),
    "a code of codes": called("_codecs encode", ENCODED, text("hex")),
    "bytes of the same text again and again": text("a" * 10**6) + b"q\x01"
    + b"".join(b"c_codecs\nencode\n(h\x01" + text("latin1") + b"tR" for _ in range(500)),
    "a set of the same list again and again": b"](" + b"K\x01" * 10_000 + b"eq\x01"
    + b"cbuiltins\nset\n(h\x01tR" * 500,
    "a name without end": b"c" + b"a" * 10_000,
    "a text that claims more": b"X" + struct.pack("<I", 2**31) + b"a",
    "a number of many digits": b"\x8b" + struct.pack("<i", 10**6) + b"\xff" * 10**6,
    "an extension": b"\x82\x01",
    "a buffer that is elsewhere": b"\x97",
    "another protocol": b"\x80\x06N",
    "a key of keys": b"})" + b"\x85" * 100_000 + b"K\x01s",
    "a key of tuples of tuples": b"}K\x01\x85" + b"2\x86" * 60 + b"K\x01s",
    "a dictionary as a key": b"}}K\x01s",
    "values in values": b"]" * 100_000 + b"a" * 99_999,
    "state for a dictionary": b"}}" + text("items") + b"K\x05sb",
    "methods of an OrderedDict": called("collections OrderedDict") + b"}" + text("items") + b"K\x05sb",
    "state for a tensor": viewed(4, 0, (4,), (1,)) + b"}b",
    "entries of a tensor": viewed(4, 0, (4,), (1,)) + b"K\x01K\x02s",
    "an object of a tensor": viewed(4, 0, (4,), (1,)) + b")\x81",
    "a call of a call": called("builtins getattr", text("os"), text("system")) + b"(tR",
}  # fmt: skip


@pytest.mark.parametrize("what", HOSTILE)
def test_everything_else_is_refused(what: str) -> None:
    path = pickled(HOSTILE[what], **{"0": bytes(16)})
    with pytest.raises(InputError, match=r"file.pt: (not a readable checkpoint|refused, it would run code)"):
        load(path, Given("ckpt", path))


def test_all_calls_are_named() -> None:
    torch.save([Calls(os.mkdir, "x"), Calls(eval, "1"), nn.Linear(2, 2)], "file.pt")
    with pytest.raises(InputError, match=r"would run code on loading: builtins.eval, posix.mkdir$"):
        load("file.pt", Given("ckpt", "file.pt"))
    assert not Path("x").exists()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda name, data: (name.replace("data.pkl", "DATA.PKL"), data), "it has no data.pkl"),
        (lambda name, data: (name.replace("data/0", "data.pkl"), data), "two of its members have one name"),
        (lambda name, data: (name.replace("data/0", "Data.pkl"), data), "two of its members have one name"),
        (lambda name, data: (name.replace("version", "other.pkl"), data), "a member 'file/other.pkl'"),
        (lambda name, data: (name.replace("file/data/0", "data/0"), data), "a member 'data/0'"),
        (lambda name, data: (name, data[:-1] if name.endswith("/0") else data), "claims 16 bytes that are missing"),
        (lambda name, data: (name, b"middle" if name.endswith("byteorder") else data), "its byte order is b'middle'"),
    ],
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_archives_have_exactly_the_members_that_torch_writes(change: Any, reason: str) -> None:
    torch.save({"w": torch.ones(2, 2)}, "file.pt")
    with zipfile.ZipFile("file.pt") as old, zipfile.ZipFile("changed.pt", "w") as new:
        for name in old.namelist():
            new.writestr(*change(name, old.read(name)))
    with pytest.raises(InputError, match=reason):
        load("changed.pt", Given("ckpt", "changed.pt"))


def test_bytes_after_an_old_file_are_not_read() -> None:
    torch.save({"w": torch.zeros(2)}, "old.pt", _use_new_zipfile_serialization=False)
    torch.save({"w": torch.ones(2)}, "new.pt")
    Path("both.pt").write_bytes(Path("old.pt").read_bytes() + Path("new.pt").read_bytes())
    assert load("both.pt", Given("ckpt", "both.pt")).content["w"].tolist() == [0, 0]


# The child process


def endured(content: bytes, **settings: Any) -> None:
    Path("file.pt").write_bytes(content)
    with open("file.pt", "rb") as file, guard.enduring(file, **settings):
        pass


def saved(content: Any) -> bytes:
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


def test_the_child_succeeds_for_a_file_that_is_read_or_refused() -> None:
    endured(saved({"w": torch.ones(2)}))
    endured(b"no checkpoint")


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "signal 11"),
        ("x = bytearray(2**31)", "exit code 1"),
        ("raise RecursionError", "exit code 1"),
    ],
)
def test_a_killed_reader_does_not_kill_the_program(fault: str, reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    code = "from bdclean.inert import child; child.parse = lambda data: exec({fault!r}, {{}}); child.read()"
    code = "import sys; sys.path.insert(0, sys.argv[1]); " + code.format(fault=fault)
    with pytest.raises(RefusedError, match=reason):
        endured(saved({"w": torch.ones(2)}), code=code)
    monkeypatch.setattr(guard, "enduring", partial(guard.enduring, code=code))
    with pytest.raises(InputError, match=f"ckpt file.pt: not a readable checkpoint: .*{reason}"):
        load("file.pt", Given("ckpt", "file.pt"))


def test_the_reader_has_a_time_limit() -> None:
    with pytest.raises(RefusedError, match=r"longer than 0.2 s"):
        endured(b"x", code="while True: pass", seconds=0.2)


def test_the_reader_needs_only_the_standard_library_and_little_memory() -> None:
    code = guard.CHILD.replace(
        "read()", "0; print(sorted(set(sys.modules) & {'torch', 'numpy', 'safetensors', 'PIL'}))"
    )
    said = subprocess.run([sys.executable, "-I", "-S", "-c", code, str(guard.PACKAGES)], capture_output=True, text=True)
    assert said.stdout.strip() == "[]", said.stderr
    assert child.MEMORY == 2**30


def test_reading_works_from_threads() -> None:
    torch.save({"w": torch.ones(2, 2)}, "file.pt")
    found: list[Any] = []
    threads = [
        threading.Thread(target=lambda: found.append(load("file.pt", Given("ckpt", "file.pt")).content))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4


def test_the_same_bytes_are_described_in_both_processes() -> None:
    data = saved({"w": torch.arange(4.0), "x": [1, "a"]})
    first, second = (parse(memoryview(data)).content for _ in range(2))
    assert first["w"].storage.data == second["w"].storage.data
    assert first["x"] == second["x"]
