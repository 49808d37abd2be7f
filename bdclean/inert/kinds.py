"""Recognising files of other formats, with advice for the user."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

from bdclean.errors import Given

ENOUGH = 1024
"""Bytes at the beginning of a file that determine its format."""
PYTORCH = "give the PyTorch file of the network"
UNPACK = "unpack it, and give the file of the network"
AGAIN = "download the file again"
NUMPY = b"\x93NUMPY"
BEGINNINGS = {
    b"\x89HDF\r\n\x1a\n": f"an HDF5 file, as Keras and TensorFlow write them: {PYTORCH}",
    b"\x1f\x8b": f"packed by gzip: {UNPACK}",
    b"BZh": f"packed by bzip2: {UNPACK}",
    b"\xfd7zXZ\0": f"packed by xz: {UNPACK}",
    b"7z\xbc\xaf\x27\x1c": f"a 7z archive: {UNPACK}",
    b"Rar!": f"a RAR archive: {UNPACK}",
    b"\x28\xb5\x2f\xfd": f"packed by zstd: {UNPACK}",
    b"GGUF": f"a GGUF file, of llama.cpp: {PYTORCH}",
    NUMPY: "a NumPy array, which has no names of layers",
    b"MATLAB": f"a file of MATLAB: {PYTORCH}",
    b"\x89PNG": "an image (PNG)",
    b"\xff\xd8\xff": "an image (JPEG)",
    b"GIF8": "an image (GIF)",
    b"BM": "an image (BMP)",
    b"II*\0": "an image (TIFF)",
    b"MM\0*": "an image (TIFF)",
    b"%PDF": "a PDF",
    b"\x7fELF": "a program",
    b"MZ": "a program",
}
"""First bytes of files of other formats."""
ONNX = re.compile(rb"\x08[\x01-\x20](?:[\x12\x1a\x22\x32][\x00-\x7f]|\x28[\x00-\x7f]|\x3a|\x42)", re.DOTALL)
"""ONNX: format version, then producer, domain, model version, documentation, graph or operator set."""
TEXT = re.compile(rb"[\t\n\r\x20-\x7e\x80-\xff]+")
FOLDERS = {
    "saved_model.pb": f"a SavedModel of TensorFlow: {PYTORCH}",
    "keras_metadata.pb": f"a SavedModel of Keras: {PYTORCH}",
    ".metadata": "a distributed checkpoint: turn it into one file with torch.distributed.checkpoint.format_utils",
    "data.pkl": "a PyTorch file that was unpacked: give the file itself, as it was",
}
"""Formats of folders, by a file in them."""
MODELS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".tar")


def _images() -> str:
    return f"images go to {Given('data.source')} or {Given('data.unlabeled')}"


def of_bytes(head: bytes) -> str | None:
    """Describe the format of a file and what to do, from its first bytes; None if it may be a PyTorch file.

    Args:
        head: The first `ENOUGH` bytes, or all.
    """
    if not head:
        return f"it is empty: {AGAIN}"
    for beginning, what in BEGINNINGS.items():
        if head.startswith(beginning):
            return f"{what}: {_images()}" if beginning == NUMPY else what
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "an image (WEBP)"
    if head[4:8] == b"TFL3":
        return f"a network of TensorFlow Lite: {PYTORCH}"
    if head[257:262] == b"ustar":
        return f"a tar archive: {UNPACK}; if PyTorch before 0.2 wrote it, load and save it with version 1.x first"
    if ONNX.match(head):
        return f"an ONNX graph, which cannot be trained: {PYTORCH}, from which it was exported"
    start = head.lstrip(b"\xef\xbb\xbf\t\n\r ").lower()
    if start.startswith(b"version https://git-lfs"):
        return "a pointer of Git LFS, not the file itself: git lfs pull"
    if start.startswith((b"<!doctype html", b"<html", b"<head", b"<?xml", b"<error")):
        return f"a web page, perhaps an error or the login: {AGAIN}"
    if TEXT.fullmatch(head):
        return f"a text file: {AGAIN}, or give another one" if start else f"it is blank: {AGAIN}"
    return f"it holds nothing but zeros: {AGAIN}" if not any(head) else None


def of_members(names: Sequence[str]) -> str | None:
    """Describe the format of a zip archive and what to do, from names in it; None if it may be a PyTorch file."""
    inside = {name.partition("/")[2] for name in names}
    if "constants.pkl" in inside or any(name.startswith("code/") for name in inside):
        return (
            "a TorchScript program, not weights. Loading it runs its code: where that can do no harm, "
            "torch.save(torch.jit.load(FILE, map_location='cpu').state_dict(), 'weights.pt') gives its weights"
        )
    if "data.pkl" in map(str.lower, inside):
        return None
    if {"archive_format", "archive_version"} & inside or any(name.startswith("models/") for name in inside):
        return (
            "a program of torch.export, not weights: "
            "torch.save(torch.export.load(FILE).state_dict, 'weights.pt') gives its weights"
        )
    if "model.weights.h5" in names:
        return f"a network of Keras: {PYTORCH}"
    if all(name.endswith(".npy") for name in names):
        return f"NumPy arrays (.npz), which are not a network: {_images()}"
    shown = ", ".join(name[:60] for name in names[:5])
    return f"a zip archive of other files ({shown}): {UNPACK}"


def of_folder(path: str) -> str:
    """Describe the format of a folder and what to do, from the files in it."""
    names = sorted(os.listdir(path))
    for name, what in FOLDERS.items():
        if name in names:
            return f"a folder, {what}"
    files = [name for name in names if name.endswith(MODELS)]
    if not files:
        return "a folder without a file of weights"
    return (
        f"a folder: give the file in it that holds the weights: {', '.join(os.path.join(path, f) for f in files[:5])}"
    )
