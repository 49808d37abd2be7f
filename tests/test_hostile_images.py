"""Images, arrays and folders that are made to fill the memory, or to keep the program busy forever."""

import io
import os
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bdclean import InputError, decoding, process_memory
from bdclean.attacks import BadNets
from bdclean.data.sources import open_source
from bdclean.data.walk import walk
from bdclean.decoding import decode
from tests.conftest import computing

MIB = 2**20


def outcome(call: Callable[[], Any], extra: int) -> str:
    """Call a function in a process with limited additional memory: its result or its error, as text."""
    resource = pytest.importorskip("resource")
    status = Path("/proc/self/statm")
    if not status.exists():
        pytest.skip("only Linux says how much memory a process has")
    reader, writer = os.pipe()
    if (child := os.fork()) == 0:
        limit = int(status.read_text().split()[0]) * resource.getpagesize() + extra
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        try:
            text = str(call())
        except BaseException as error:
            text = f"{type(error).__name__}: {error}"
        os.write(writer, text.encode()[:4000])
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        text = pipe.read().decode()
    assert os.waitpid(child, 0)[1] == 0
    return text


def decoded(content: bytes, name: str = "a.bin", extra: int = 300 * MIB) -> str:
    Path(name).write_bytes(content)
    with computing(5):
        return outcome(lambda: image if isinstance(image := decode(Path(name), 16), str) else "decoded", extra)


def encoded(image: Image.Image, kind: str, **options: Any) -> bytearray:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return bytearray(file.getvalue())


def jpeg2000(side: int, in_header: bool) -> bytes:
    """A few hundred bytes that claim a huge image, in the codestream and optionally in the header before it."""
    file = encoded(Image.new("RGB", (64, 64)), "JPEG2000")
    if in_header:
        struct.pack_into(">II", file, file.index(b"ihdr") + 4, side, side)
    stream = file.index(b"\xff\x4f\xff\x51")
    for place in (8, 24):
        struct.pack_into(">II", file, stream + place, side, side)
    return bytes(file)


def webp(side: int) -> bytes:
    """A huge canvas, which Pillow allocates when it opens the file."""
    frame = encoded(Image.new("RGB", (2, 2)), "WEBP", lossless=True)[12:]
    canvas = (side - 1).to_bytes(3, "little")
    chunks = b"WEBPVP8X" + struct.pack("<I", 10) + b"\2\0\0\0" + 2 * canvas + b"ANIM" + struct.pack("<I", 6) + bytes(6)
    chunks += b"ANMF" + struct.pack("<I", 16 + len(frame)) + bytes(6) + 2 * b"\1\0\0" + b"\1\0\0\0" + frame
    return b"RIFF" + struct.pack("<I", len(chunks)) + chunks


def icon(side: int) -> bytes:
    """An icon of 16 pixels that contains a larger picture."""
    picture = encoded(Image.new("1", (side, side)), "PNG")
    return b"\0\0\1\0\1\0" + struct.pack("<BBBBHHII", 16, 16, 0, 0, 1, 32, len(picture), 22) + picture


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (jpeg2000(9000, True), "9000x9000 pixels take 2162 MiB to decode"),
        (jpeg2000(9000, False), "broken data stream"),
        (webp(16383), "could be decompression bomb"),
        (webp(12000), "could not create decoder object"),
        (icon(12000), "pixels are too many"),
        (b"P6\n#" + bytes(50_000_000) + b"\n2 2\n255\n" + bytes(12), "its header takes longer than 0.5 s to read"),
        (b"P5\n" + b"#\n" * 5_000_000 + b"2 2\n255\n" + bytes(4), "its header takes longer than 0.5 s to read"),
    ],
    ids=["jpeg2000", "jpeg2000 that lies", "webp", "smaller webp", "icon", "comment", "many comments"],
)
def test_bombs_are_refused(content: bytes, reason: str) -> None:
    assert reason in decoded(content)


def test_a_comment_of_usual_length_is_accepted() -> None:
    assert decoded(b"P6 # made by a camera\n# of mine\n2 2 # small\n255\n" + bytes(12)) == "decoded"
    assert decoded(b"P4\n8 1\n\0") == "decoded"


@pytest.mark.parametrize("value", [np.nan, np.inf, 3e38])
def test_floats_that_are_not_grey_levels(value: float) -> None:
    pixels = np.ones((20, 20), np.float32)
    pixels[3, 3], pixels[4, 4] = value, -abs(value)
    assert "its pixels are not finite, or too far apart" in decoded(bytes(encoded(Image.fromarray(pixels), "TIFF")))


def test_large_images_are_decoded_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[str] = []

    class Lock:
        def __init__(self, path: Path, poll_interval: float) -> None:
            pass

        def __enter__(self) -> None:
            waited.append("alone")

        def __exit__(self, *error: object) -> None:
            pass

    monkeypatch.setattr(decoding, "FileLock", Lock)
    for side, expected in ((500, []), (1600, ["alone"]), (3000, ["alone"])):
        waited.clear()
        Image.new("RGB", (side, side)).save("a.png")
        result = decode(Path("a.png"), 8, most=64 * MIB)
        assert waited == expected
    assert result == "3000x3000 pixels take 77 MiB to decode"


def test_a_decoders_memory_is_limited_whatever_the_header_claims() -> None:
    if process_memory.LIMIT is None:
        pytest.skip("only Linux holds a process to its memory")
    Image.new("RGB", (6000, 6000)).save("a.png")
    # In a separate process: this one may have freed memory that the limit does not count.
    code = (
        "from pathlib import Path; import numpy as np; from bdclean import decoding\n"
        "decoding._needed = lambda image, in_file: 0\n"
        "print(decoding.decode(Path('a.png'), 8, most=64 * 2**20))\n"
        "print(np.ones(100 * 2**20, np.uint8).all())  # the limit is gone again"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ended.stdout == "takes more than 64 MiB to decode\nTrue\n", ended.stderr


def test_several_workers_share(monkeypatch: pytest.MonkeyPatch) -> None:
    shares: list[int] = []
    monkeypatch.setattr(decoding, "_read", lambda path, read, formats, size, most: shares.append(most))
    for count in (None, 2, 8, 32):
        monkeypatch.setattr(
            decoding, "get_worker_info", lambda count=count: count and type("Worker", (), {"num_workers": count})
        )
        decode(Path("a.png"), 8)
    assert shares == [128 * MIB, 128 * MIB, 128 * MIB, 32 * MIB]
    assert shares[-1] * 32 + decoding.MOST_BYTES == decoding.MEMORY


# Pictures of triggers


@pytest.mark.parametrize(
    "content", [webp(12000), webp(16383), icon(900), bytes(encoded(Image.new("1", (9999, 9999)), "PNG"))]
)
def test_pictures_of_triggers_that_are_bombs(content: bytes) -> None:
    Path("trigger.png").write_bytes(content)
    attack = BadNets(trigger="trigger.png")
    text = outcome(lambda: attack.build(8), 300 * MIB)
    assert text.startswith("InputError: trigger trigger.png: not a readable image (")
    assert "\n" not in text


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_pictures_of_triggers_that_are_not_grey_levels(value: float) -> None:
    Image.fromarray(np.full((4, 4), value, np.float32)).save("trigger.tif")
    with pytest.raises(InputError, match=r"trigger.tif: not a readable image \(its pixels are not finite"):
        BadNets(trigger="trigger.tif").build(8)


# Arrays


@pytest.mark.parametrize("value", [np.nan, np.inf, 2, -1])
def test_float_arrays_that_are_not_images(value: float) -> None:
    pixels = np.zeros((4, 8, 8, 3), np.float32)
    pixels[1] = value
    np.savez("floats.npz", x_test=pixels, y_test=np.arange(4) % 2)
    with pytest.raises(InputError, match="floats.npz: x_test must be uint8 or in \\[0, 1\\], not float32 from"):
        open_source("floats.npz").load("test", 8)


def zeros(path: str, shape: tuple[int, ...], kind: str = "|u1", key: str = "x_test") -> None:
    """Write an archive of zeros with labels, of any size, without allocating them."""
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(head, {"descr": kind, "fortran_order": False, "shape": shape})
    left = int(np.prod(shape, dtype=object)) * np.dtype(kind).itemsize
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        if key != "y_test":
            labels = io.BytesIO()
            np.save(labels, np.arange(10) % 2)
            archive.writestr("y_test.npy", labels.getvalue())
        with archive.open(f"{key}.npy", "w") as member:
            member.write(head.getvalue())
            # The header is enough.
            member.write(bytes(min(left, 10 * MIB)))


@pytest.mark.parametrize("option", ["data.source", "data.unlabeled"])
def test_arrays_that_unpack_to_gigabytes(option: str) -> None:
    zeros("bomb.npz", (2_000_000, 32, 32, 3))

    def load() -> object:
        source = open_source("bomb.npz", parameter=option)
        return source.load("test", 32) if option == "data.source" else source.load_unlabeled(32, 10, 0)

    text = outcome(load, 200 * MIB)
    assert text.startswith(
        f"InputError: {option.partition('.')[2]} bomb.npz: x_test claims 6.14 GB in memory, of 0.0 MB in the file"
    )


def test_labels_that_unpack_to_gigabytes() -> None:
    zeros("bomb.npz", (10**9,), "<i8", "y_train")
    text = outcome(lambda: open_source("bomb.npz").num_classes, 200 * MIB)
    assert text.startswith("InputError: source bomb.npz: has neither x_train nor x_test")
    zeros("bomb.npz", (10**9,), "<i8", "y_test")
    with zipfile.ZipFile("bomb.npz", "a") as archive, archive.open("x_test.npy", "w") as member:
        np.lib.format.write_array(member, np.zeros((2, 8, 8, 3), np.uint8))
    text = outcome(lambda: open_source("bomb.npz").num_classes, 200 * MIB)
    assert text.startswith("InputError: source bomb.npz: y_test claims 8.00 GB in memory")


def test_an_npy_file_that_claims_more_data_than_it_contains() -> None:
    with open("short.npy", "wb") as file:
        np.lib.format.write_array_header_1_0(
            file, {"descr": "|u1", "fortran_order": False, "shape": (10**6, 32, 32, 3)}
        )
    text = outcome(lambda: open_source("short.npy").load_unlabeled(32, 10, 0), 200 * MIB)
    assert "short.npy: the array claims 3.07 GB in memory" in text


def test_images_that_compress_well_are_read() -> None:
    np.savez_compressed("blank.npz", x_test=np.zeros((3000, 32, 32, 3), np.uint8), y_test=np.arange(3000) % 2)
    assert len(open_source("blank.npz").load("test", 32)) == 3000


@pytest.mark.parametrize("shape", [(0, 8, 8, 3), (4, 0, 8, 3), (4, 8, 8, 0), (0,), ()])
def test_empty_arrays(shape: tuple[int, ...]) -> None:
    np.savez("empty.npz", x_test=np.zeros(shape, np.uint8), y_test=np.arange(4) % 2)
    np.save("empty.npy", np.zeros(shape, np.uint8))
    for name in ("empty.npz", "empty.npy"):
        with pytest.raises(InputError, match=f"source {name}: (x_test|the array) must be"):
            open_source(name)


def test_arrays_of_objects_are_not_read() -> None:
    np.savez("objects.npz", x_test=np.array([{}, {}], dtype=object), y_test=np.arange(2))
    with pytest.raises(InputError, match=r"objects.npz: array x_test cannot be read \(it holds Python objects\)"):
        open_source("objects.npz")


# Folders


def test_folders_that_link_to_each_other_are_visited_once() -> None:
    names = [f"f{number}" for number in range(9)]
    for name in names:
        Path("web", name).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(f"web/{name}/0.png")
        for other in names:
            # Nine folders, each with links to all others: 10^6 paths.
            Path("web", name, f"to{other}").symlink_to(Path("web", other).resolve())
    with computing(2):
        files, unreadable = walk(Path("web"))
    assert (len(files), unreadable) == (9, [])
    assert len(open_source("web", parameter="data.unlabeled").load_unlabeled(8, 1, 0)) == 9
    # As classes, each folder has its files once.
    assert open_source("web").num_classes == 9


def test_cyclic_and_broken_links_are_reported_and_left_out(caplog: pytest.LogCaptureFixture) -> None:
    for name in ("cat", "dog"):
        Path("photos", name).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(f"photos/{name}/0.png")
    Path("photos/cat/self.png").symlink_to("self.png")
    Path("photos/dog/gone.png").symlink_to("elsewhere.png")
    Path("photos/self").symlink_to("self")
    assert len(open_source("photos").load("test", 8)) == 2
    assert len(open_source("photos", parameter="data.unlabeled").load_unlabeled(8, 1, 0)) == 2
    labelled, loose = (record.getMessage() for record in caplog.records)
    expected = "2 left out, as they cannot be read: photos/cat/self.png, photos/dog/gone.png"
    assert labelled == f"source photos: {expected}"
    assert loose == f"unlabeled photos: 3{expected[1:]}, photos/self"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has other permissions")
def test_folders_that_cannot_be_read_are_named() -> None:
    for name in ("cat", "dog"):
        Path("photos", name).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(f"photos/{name}/0.png")
    for path in (Path.cwd(), Path("photos"), Path("photos/cat")):
        path.chmod(0o755)
    Path("photos/dog").chmod(0)

    def find() -> object:
        if os.getuid() == 0:
            # Root can read every folder.
            os.setuid(65534)
        return walk(Path("photos"))

    found = outcome(find, 100 * MIB)
    Path("photos/dog").chmod(0o700)
    assert found == str(([Path("photos/cat/0.png")], [Path("photos/dog")]))


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_deflate", "jpeg"])
def test_libtiff_prints_nothing_for_a_broken_tiff(compression: str, capfd: pytest.CaptureFixture[str]) -> None:
    file = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    Image.fromarray(noise).save(file, "TIFF", compression=compression)
    content = file.getvalue()
    for damaged in (
        content[: len(content) * 2 // 3],
        *(content[:n] + b"\0\xff" * 9 + content[n + 18 :] for n in (40, 400)),
    ):
        Path("a.tif").write_bytes(damaged)
        decode(Path("a.tif"), 16)
    assert capfd.readouterr().err == ""
