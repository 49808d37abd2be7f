"""The numbers of a storage, where they lie in memory."""

from __future__ import annotations

import numpy as np
import torch

from bdclean.inert import nodes

ALIGNMENT = 16
"""Numbers lie at multiples of so many bytes, at least, or are moved there."""


def stored(node: nodes.Storage, swapped: bool) -> torch.UntypedStorage:
    """The numbers of a storage, where they lie in memory, if they can be used there.

    Args:
        node: The storage, with data.
        swapped: Whether the bytes of each number stand the other way round.
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
