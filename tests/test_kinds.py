"""Files that are not checkpoints of PyTorch: the error names their kind, and gives advice."""

import bz2
import gzip
import io
import lzma
import struct
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from bdclean import InputError
from bdclean.checkpoint import read


def tarred() -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("model.pth"))
    return file.getvalue()


def zipped(*names: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name in names:
            archive.writestr(name, "content")
    return file.getvalue()


def drawn(kind: str) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (3, 3)).save(file, kind)
    return file.getvalue()


def arrays() -> bytes:
    file = io.BytesIO()
    np.savez(file, x_train=np.zeros(3))
    return file.getvalue()


FILES: dict[str, tuple[bytes, str]] = {
    "model.onnx": (b"\x08\x07\x12\x07pytorch\x1a\x052.0.0:\x10", "an ONNX graph, .*give the PyTorch file"),
    "model.h5": (b"\x89HDF\r\n\x1a\n" + bytes(50), "HDF5 file, as Keras and TensorFlow .*give the PyTorch file"),
    "model.keras": (zipped("metadata.json", "config.json", "model.weights.h5"), "a network of Keras"),
    "model.tflite": (b"\x1c\0\0\0TFL3" + bytes(50), "TensorFlow Lite"),
    "model.gguf": (b"GGUF\3\0\0\0", "llama.cpp"),
    "model.pth": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n",
        "Git LFS.*git lfs pull",
    ),
    "page.pth": (b"\n<!DOCTYPE html>\n<html><body>404</body></html>", "a web page.*download the file again"),
    "error.pth": (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "a web page"),
    "notes.pth": (b"import torch\n", "a text"),
    "empty.pth": (b"", "it is empty"),
    "zeros.pth": (bytes(5000), "nothing but zeros"),
    "model.pth.gz": (gzip.compress(b"x"), "packed by gzip: unpack it"),
    "model.pth.bz2": (bz2.compress(b"x"), "packed by bzip2"),
    "model.pth.xz": (lzma.compress(b"x"), "packed by xz"),
    "model.7z": (b"7z\xbc\xaf\x27\x1c\0\4", "a 7z archive"),
    "model.tar": (tarred(), "a tar archive: unpack it"),
    "model.zip": (zipped("net/model.pth", "net/readme.md"), r"other files \(net/model.pth, net/readme.md\): unpack it"),
    "images.npz": (arrays(), "NumPy arrays .*source"),
    "image.png": (drawn("PNG"), r"an image \(PNG\)"),
    "image.jpg": (drawn("JPEG"), r"an image \(JPEG\)"),
    "image.webp": (drawn("WEBP"), r"an image \(WEBP\)"),
    "program": (b"\x7fELF" + bytes(50), "a program"),
    "program.pt2": (zipped("m/archive_format", "m/models/model.json"), "a program of torch.export.*torch.export.load"),
    "cut.pth": (b"PK\x03\x04" + bytes(100), "cut off"),
    "large.safetensors": (struct.pack("<Q", 2**40) + b"{}", "header claims 1099511627776 bytes"),
}


@pytest.mark.parametrize("name", FILES)
def test_files_of_other_kinds(name: str) -> None:
    content, reason = FILES[name]
    Path(name).write_bytes(content)
    with pytest.raises(InputError, match=f"ckpt {name}: not a readable checkpoint: .*{reason}") as caught:
        read(name)
    assert len(str(caught.value)) < 400
    assert "weights_only=False" not in str(caught.value)


def test_real_files_of_onnx() -> None:
    pytest.importorskip("onnxscript")
    torch.onnx.export(nn.Linear(2, 2), (torch.ones(1, 2),), "model.onnx", dynamo=True, verbose=False)
    with pytest.raises(InputError, match="an ONNX graph"):
        read("model.onnx")


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_the_advice_for_torchscript_works() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4, 2))
    torch.jit.save(torch.jit.script(network), "script.pt")
    with pytest.raises(InputError, match=r"a TorchScript program, .*torch.save\((.*), 'weights.pt'\)") as caught:
        read("script.pt")
    advice = str(caught.value).partition("torch.save(")[2].partition(", 'weights.pt')")[0]
    torch.save(eval(advice, {"torch": torch, "FILE": "script.pt"}), "weights.pt")
    assert torch.equal(read("weights.pt").weights["0.weight"], network[0].weight)


FOLDERS = {
    ("saved_model.pb", "variables"): "a SavedModel of TensorFlow: give the PyTorch file",
    (".metadata", "__0_0.distcp"): "a distributed checkpoint.*torch.distributed.checkpoint",
    ("data.pkl", "version"): "a PyTorch file that was unpacked",
    ("last.ckpt", "notes.txt"): "a folder: give the file .*folder/last.ckpt",
    ("notes.txt",): "without a file of weights",
}


@pytest.mark.parametrize("names", FOLDERS)
def test_folders(names: tuple[str, ...]) -> None:
    Path("folder").mkdir()
    for name in names:
        Path("folder", name).touch()
    with pytest.raises(InputError, match=f"ckpt folder: not a readable checkpoint: .*{FOLDERS[names]}"):
        read("folder")


@pytest.mark.parametrize("path", ["/dev/null", "gone.pth", "a" * 300, "a\0b"])
def test_paths_that_are_not_files(path: str) -> None:
    with pytest.raises(InputError, match="ckpt "):
        read(path)


def test_a_file_without_permission(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("closed.pth").write_bytes(b"x")

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(InputError, match="ckpt closed.pth: .*Permission denied"):
        read("closed.pth")
