"""Write a network atomically as a folder of transformers or timm."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from bdclean.checkpoint.forms import Checkpoint
from bdclean.errors import Given, InputError
from bdclean.hub import CONFIG, PROCESSORS, WEIGHTS, is_transformers

OWN = (CONFIG, *PROCESSORS, WEIGHTS[0])
"""The files in a written folder; a folder with other files is not replaced."""


def is_folder(path: Path) -> bool:
    """Whether the path of a result names a folder, as it has no suffix."""
    return not path.suffix


def check_folder(path: Path, like: Checkpoint | None, option: Given) -> None:
    """Check before the work that a folder can be written.

    Args:
        path: The folder.
        like: The suspect's checkpoint; None if the suspect came from memory.
        option: The parameter that named the folder, for messages.

    Raises:
        InputError: If the suspect has no description to copy, or the folder holds other files.
    """
    if like is None or like.folder is None:
        raise InputError(*option, "needs a suffix, such as .pt; folders are written for suspects that are folders")
    others = sorted({*os.listdir(path)} - {*OWN}) if path.is_dir() else []
    if others:
        raise InputError(*option, f"is a folder with other files ({others[0]}); choose a new name")


def named_as_in_folder(network: nn.Module, like: Checkpoint, prefix: str) -> dict[str, Tensor]:
    """The weights of a network with the names and dtypes of the suspect's folder.

    Args:
        network: The network, with the installed library's names.
        like: The suspect's checkpoint, a folder.
        prefix: Prefix of the names in the checkpoint, which the network's names lack.
    """
    state = {prefix + name: value.detach().cpu() for name, value in network.state_dict().items()}
    arch = like.model["arch"]
    if is_transformers(arch):
        from transformers.core_model_loading import revert_weight_conversion

        # Only the network that was loaded from the old names can convert back to them.
        state = dict(revert_weight_conversion(like.skeleton, state))  # type: ignore[arg-type]  # a network of transformers
    common = _common_type(like.content)
    return {name: value.to(_type_of(value, like.content.get(name), common)) for name, value in state.items()}


def write_folder(path: Path, state: Mapping[str, Tensor], like: Checkpoint) -> None:
    """Write a folder that `from_pretrained` of transformers, or `create_model` of timm, loads.

    Args:
        path: The folder. An existing folder is replaced at the end by a rename.
        state: The weights, with the names in the suspect's files.
        like: The suspect's checkpoint, a folder, whose description is copied.
    """
    from safetensors.torch import save_file

    assert like.folder is not None
    with whole_folder(path) as temporary:
        # Clone each tensor, as safetensors does not support shared memory.
        separate = {name: value.clone(memory_format=torch.contiguous_format) for name, value in state.items()}
        save_file(separate, temporary / WEIGHTS[0], {"format": "pt"})
        for source in like.folder.copied:
            shutil.copyfile(source, temporary / source.name)


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Write a folder atomically.

    Args:
        path: The folder. An existing folder is replaced at the end by a rename.

    Yields:
        A temporary folder beside it, to write to.
    """
    final = Path(os.path.realpath(path))
    temporary = final.with_name(f".bdclean.{os.getpid()}.{secrets.token_hex(4)}")
    old = temporary.with_name(f"{temporary.name}.old")
    try:
        temporary.mkdir()
        yield temporary
        if final.exists():
            final.rename(old)
        temporary.rename(final)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def _common_type(content: Mapping[str, Tensor]) -> torch.dtype:
    """The most frequent floating-point dtype of a file's weights."""
    types = [value.dtype for value in content.values() if value.is_floating_point()]
    return max({*types}, key=types.count, default=torch.float32)


def _type_of(value: Tensor, old: Tensor | None, common: torch.dtype) -> torch.dtype:
    if old is not None:
        return old.dtype
    return common if value.is_floating_point() else value.dtype
