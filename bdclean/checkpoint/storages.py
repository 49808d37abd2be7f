"""Make torch storages from bytes in memory, without a copy where possible."""

from __future__ import annotations

import numpy as np
import torch

from bdclean.inert import nodes

ALIGNMENT = 16
"""Alignment of storages, in bytes; unaligned data is copied."""


def stored(node: nodes.Storage, swapped: bool) -> torch.UntypedStorage:
    """Make a storage that shares the memory of its data, or a copy if this memory cannot be used.

    Args:
        node: The storage, with data.
        swapped: Whether numbers have the other byte order.
    """
    assert node.data is not None
    if not node.nbytes:
        return torch.empty(0).untyped_storage()
    numbers = np.frombuffer(node.data, np.uint8)
    if swapped:
        size = nodes.ITEM_SIZES[node.dtype] // (2 if node.dtype.startswith("complex") else 1)
        numbers = numbers.view(f"u{size}").byteswap().view(np.uint8)
    elif not numbers.flags.writeable or numbers.ctypes.data % ALIGNMENT:
        numbers = numbers.copy()
    return torch.from_numpy(numbers).untyped_storage()
