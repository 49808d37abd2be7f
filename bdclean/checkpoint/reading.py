"""Read a checkpoint from a file, or from a folder of transformers or timm."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from bdclean import first_ten
from bdclean.checkpoint.claims import MODEL, nested, vetted
from bdclean.checkpoint.files import load
from bdclean.checkpoint.forms import Checkpoint, read_file, tensors_of
from bdclean.errors import Given, InputError
from bdclean.hub import Folder, describe, find, is_transformers, loaded, model_type


def read(path: str, parameter: str = "ckpt") -> Checkpoint:
    """Read a checkpoint: bdclean's, any `state_dict`, bare or under a usual key, or a folder of transformers or timm.

    Args:
        path: The folder, the file of weights in it, or any other `.ckpt`, `.pt`, `.pth`, `.tar`, `.bin` or
            `.safetensors` file.
        parameter: The parameter that named the path, for messages.

    Raises:
        InputError: If the checkpoint is missing or unreadable, is not plain data, has no weights, has impossible
            metadata, or names code.
    """
    option = Given(parameter, path)
    folder = find(path, option)
    return read_file(path, option) if folder is None else _read_folder(path, folder, option)


def _read_folder(path: str, folder: Folder, option: Given) -> Checkpoint:
    description = describe(folder, option)
    for name, value in (description.model.get("arch_kwargs") or {}).items():
        if not nested(value):
            raise InputError(*option, f"its config.json: {name} cannot be {str(value)[:80]}")
    model = vetted(description.model, MODEL, option, "what its config.json and its processor say")
    content: dict[str, Tensor] = {}
    notes = description.notes
    for part in folder.weights:
        read_part = load(str(part), option)
        content |= tensors_of(read_part.content, option, part.name)
        notes += read_part.notes
    weights, skeleton = content, None
    if is_transformers(model["arch"]):
        weights, surplus, skeleton = _renamed(model, content, option)
        if surplus:
            notes += (f"left out, as the network has no place for them: {first_ten(surplus)}",)
    names = description.class_names if len(description.class_names) == model.get("num_classes") else ()
    data = {} if description.resize is None else {"resize": description.resize}
    return Checkpoint(
        path,
        content,
        weights,
        model=model,
        data=data,
        class_names=names,
        folder=folder,
        notes=notes,
        skeleton=skeleton,
    )


def _renamed(
    model: Mapping[str, Any], content: Mapping[str, Tensor], option: Given
) -> tuple[dict[str, Tensor], list[str], nn.Module]:
    """Weights named as in the installed version of transformers, the unused names, and the network without weights."""
    kind, size = model_type(model["arch"]), model.get("image_size", 224)
    network, surplus = loaded(kind, model.get("arch_kwargs") or {}, model["num_classes"], size, content, option)
    weights = {name: value.detach() for name, value in network.state_dict().items()}
    return weights, surplus, network.to("meta")
