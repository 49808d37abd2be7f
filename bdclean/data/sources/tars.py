"""Archives of images, such as the shards of WebDataset: only as many images are read as are used."""

from __future__ import annotations

import os
import re
import shutil
import tarfile
import tempfile
from pathlib import Path, PurePosixPath

import torch

from bdclean.data.files import FileImages
from bdclean.data.sources.base import Source
from bdclean.data.walk import listed
from bdclean.decoding import MOST_BYTES, SUFFIXES
from bdclean.errors import InputError
from bdclean.registry import ARCHIVE_SUFFIX

Member = tuple[Path, tarfile.TarInfo]
"""An archive and an image in it."""


class Tars(Source):
    """Unlabeled images in a `.tar` file, or in all those of a folder. Labels beside them are not used."""

    @classmethod
    def has_name(cls, name: str) -> bool:
        return holds_tars(name) if os.path.isdir(name) else name.endswith(ARCHIVE_SUFFIX) and os.path.isfile(name)

    def load_unlabeled(self, image_size: int, count: int, seed: int) -> FileImages:
        members = self._members()
        if not members:
            raise InputError(*self.option, "no images in it")
        order = torch.randperm(len(members), generator=torch.Generator().manual_seed(seed))[:count]
        # A folder of their own, which is removed with this object; workers decode files.
        self._folder = tempfile.TemporaryDirectory(prefix="bdclean-")
        paths = self._extract([members[number] for number in sorted(order.tolist())], Path(self._folder.name))
        return FileImages(paths, image_size, self.option)

    def _members(self) -> list[Member]:
        """All images, from the headers alone."""
        place = Path(self.name)
        archives = sorted(place.glob(f"*{ARCHIVE_SUFFIX}")) if place.is_dir() else [place]
        found: list[Member] = []
        for archive in archives:
            try:
                with tarfile.open(archive, "r:") as opened:
                    found += [(archive, one) for one in opened if _is_image(one)]
            except (tarfile.TarError, OSError, ValueError) as error:
                raise InputError(*self.option, f"{archive} is not a readable tar archive ({error})") from error
        return found

    def _extract(self, members: list[Member], folder: Path) -> list[Path]:
        """Copy some images to files, whose names are not the archive's choice."""
        paths = []
        for number, (archive, member) in enumerate(members):
            name = re.sub(r"[^\w.-]", "_", PurePosixPath(member.name).name)[-100:]
            path = folder / f"{number:06d}-{name}"
            try:
                with tarfile.open(archive, "r:") as opened, open(path, "xb") as file:
                    content = opened.extractfile(member)
                    assert content is not None
                    shutil.copyfileobj(content, file)
            except (tarfile.TarError, OSError) as error:
                raise InputError(*self.option, f"{member.name} of {archive} cannot be read ({error})") from error
            paths.append(path)
        return paths


def holds_tars(folder: str) -> bool:
    """Whether a folder has archives in it, and neither images nor folders."""
    files = listed(Path(folder))
    archives = [path for path in files if path.suffix == ARCHIVE_SUFFIX]
    others = (path.suffix.lower() in SUFFIXES or path.is_dir() for path in files)
    return bool(archives) and not any(others)


def _is_image(member: tarfile.TarInfo) -> bool:
    name = PurePosixPath(member.name)
    # A sparse file takes more space on the disk than in the archive.
    ordinary = member.isreg() and not member.issparse() and member.size <= MOST_BYTES
    return ordinary and name.suffix.lower() in SUFFIXES and not name.name.startswith(".")
