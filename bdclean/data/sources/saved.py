"""Folders that the library `datasets` saved: only as many images are read as are used."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import torch

from bdclean import first_line
from bdclean.data.files import FileImages
from bdclean.data.sources.base import Source
from bdclean.decoding import MOST_BYTES
from bdclean.errors import InputError

ONE_PART, PARTS = "state.json", "dataset_dict.json"
"""Files in the folder of a `Dataset`, and in that of a `DatasetDict`."""


class SavedDataset(Source):
    """Unlabeled images of `Dataset.save_to_disk` or `DatasetDict.save_to_disk`: the part `train`, or else the first.

    Labels beside the images are not used.
    """

    @classmethod
    def has_name(cls, name: str) -> bool:
        return holds_saved(name)

    def load_unlabeled(self, image_size: int, count: int, seed: int) -> FileImages:
        rows, column = self._rows()
        order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))[:count]
        # A folder of their own, which is removed with this object; workers decode files.
        self._folder = tempfile.TemporaryDirectory(prefix="bdclean-")
        paths = []
        for number, row in enumerate(sorted(order.tolist())):
            content = rows[row][column]["bytes"]
            if content is None:
                raise InputError(*self.option, f"row {row} has the path of an image, not the image")
            if len(content) > MOST_BYTES:
                raise InputError(*self.option, f"the image of row {row} has {len(content):,} bytes")
            path = Path(self._folder.name, f"{number:06d}")
            path.write_bytes(content)
            paths.append(path)
        return FileImages(paths, image_size, self.option)

    def _rows(self) -> tuple[Any, str]:
        """The rows, with encoded images, and the name of the column of images."""
        try:
            import datasets
        except ImportError as error:
            raise InputError(*self.option, 'needs datasets: pip install "bdclean[hf]"') from error
        try:
            opened = datasets.load_from_disk(self.name)
            rows = (
                opened if isinstance(opened, datasets.Dataset) else opened.get("train") or next(iter(opened.values()))
            )
            columns = [name for name, kind in rows.features.items() if isinstance(kind, datasets.Image)]
            if columns:
                rows = rows.select_columns(columns[:1]).cast_column(columns[0], datasets.Image(decode=False))
        except Exception as error:  # a damaged folder may raise anything
            raise InputError(*self.option, f"not a readable folder of datasets ({first_line(error)})") from error
        if not columns or not len(rows):
            raise InputError(*self.option, f"no images in it: its columns are {', '.join(rows.column_names)}")
        return rows, columns[0]


def holds_saved(folder: str) -> bool:
    """Whether the library `datasets` saved a folder."""
    return any(os.path.isfile(os.path.join(folder, name)) for name in (ONE_PART, PARTS))
