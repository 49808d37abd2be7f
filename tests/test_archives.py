"""Images in tar archives, as WebDataset writes them: only as many are read as are used."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest
import torch
from PIL import Image

from bdclean import InputError
from bdclean.cli.main import main
from bdclean.data import PoisonDataModule
from bdclean.data.sources import open_source
from tests.conftest import QUIET


def write_shard(path: str, count: int, first: int = 0) -> None:
    """A shard: for each sample, an image, its class and its description."""
    with tarfile.open(path, "w") as archive:
        for number in range(first, first + count):
            file = io.BytesIO()
            Image.new("RGB", (40, 32), (number % 256, 50, 200)).save(file, "PNG")
            for suffix, content in ((".png", file.getvalue()), (".cls", b"3"), (".json", b"{}")):
                member = tarfile.TarInfo(f"part/{number:05d}{suffix}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))


def reds(images: object) -> set[int]:
    """The numbers of images."""
    pixels = images.batch(torch.arange(len(images)))  # type: ignore[attr-defined, arg-type]
    return {int(one[0, 0, 0]) for one in pixels}


def test_images_of_a_shard_are_drawn_by_their_seed() -> None:
    write_shard("shard.tar", 30)
    source = open_source("shard.tar", parameter="data.unlabeled")
    first, again, other = (reds(source.load_unlabeled(16, 10, seed)) for seed in (0, 0, 1))
    assert len(first) == 10
    assert first == again
    assert first != other
    assert len(source.load_unlabeled(16, 100, 0)) == 30


def test_no_more_files_are_written_than_images_used_and_none_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("shards").mkdir()
    Path("tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", "tmp")
    for shard in range(3):
        write_shard(f"shards/shard-{shard:06d}.tar", 20, 20 * shard)
    source = open_source("shards", parameter="data.unlabeled")
    images = source.load_unlabeled(16, 25, 0)
    assert len([*Path("tmp").rglob("*.png")]) == len(images) == 25
    assert {number // 20 for number in reds(images)} == {0, 1, 2}
    del images, source
    assert not [*Path("tmp").iterdir()]


@pytest.mark.usefixtures("tiny_shapes")
def test_a_command_takes_archives(tiny_suspect: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_shard("shard.tar", 30)
    main(["predict", "--ckpt", str(tiny_suspect), "--data.unlabeled", "shard.tar", *QUIET])
    assert len(Path("predictions.csv").read_text().splitlines()) == 31
    with pytest.raises(SystemExit):
        main(["test", "--ckpt", str(tiny_suspect), "--data.source", "shard.tar", *QUIET])
    assert "has no labelled images of two classes or more" in capsys.readouterr().err


def test_members_that_are_no_images_are_left_out() -> None:
    with tarfile.open("bad.tar", "w") as archive:
        link = tarfile.TarInfo("link.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
        hidden = tarfile.TarInfo("._a.png")
        archive.addfile(hidden)
        huge = tarfile.TarInfo("../../huge.png")
        huge.type = tarfile.GNUTYPE_SPARSE
        archive.addfile(huge)
    with pytest.raises(InputError, match=r"^unlabeled bad.tar: no images in it$"):
        PoisonDataModule(None, unlabeled="bad.tar", image_size=8).defender  # noqa: B018  # it is made when asked for


def test_names_of_members_lead_nowhere() -> None:
    with tarfile.open("evil.tar", "w") as archive:
        file = io.BytesIO()
        Image.new("RGB", (8, 8)).save(file, "PNG")
        for name in ("../../evil.png", "/tmp/evil.png", "a b\n;.png"):
            member = tarfile.TarInfo(name)
            member.size = len(file.getvalue())
            archive.addfile(member, io.BytesIO(file.getvalue()))
    source = open_source("evil.tar", parameter="data.unlabeled")
    paths = source.load_unlabeled(8, 5, 0).paths  # type: ignore[attr-defined]
    assert len({path.parent for path in paths}) == 1
    assert [path.name for path in paths] == ["000000-evil.png", "000001-evil.png", "000002-a_b__.png"]


@pytest.mark.parametrize("content", [b"", b"no archive" * 200])
def test_a_damaged_archive_is_refused(content: bytes) -> None:
    Path("a.tar").write_bytes(content)
    with pytest.raises(InputError, match="^unlabeled a.tar: a.tar is not a readable tar archive"):
        open_source("a.tar", parameter="data.unlabeled").load_unlabeled(8, 5, 0)


def test_a_truncated_archive_is_refused() -> None:
    write_shard("a.tar", 3)
    whole = Path("a.tar").read_bytes()
    Path("a.tar").write_bytes(whole[:600])
    with pytest.raises(InputError, match="a.tar"):
        open_source("a.tar", parameter="data.unlabeled").load_unlabeled(8, 5, 0)


def test_a_folder_of_photographs_stays_one_whatever_else_lies_in_it() -> None:
    Path("photos").mkdir()
    write_shard("photos/backup.tar", 3)
    Image.new("RGB", (9, 9)).save("photos/a.png")
    assert len(open_source("photos", parameter="data.unlabeled").load_unlabeled(8, 10, 0)) == 1
