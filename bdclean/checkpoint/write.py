"""Writing a network, in the form that it came in or in another."""

from __future__ import annotations

import copy
import os
import secrets
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor, nn

from bdclean.checkpoint.folder_writing import check_folder, is_folder, named_as_in_folder, write_folder
from bdclean.checkpoint.forms import Checkpoint
from bdclean.errors import Given, InputError


def write(path: Path, network: nn.Module, image: Tensor, like: Checkpoint | None, prefix: str) -> None:
    """Write a network, whole or not at all, so that whoever loaded the suspect can load it in the same way.

    A `.pt`, `.pth`, `.tar`, `.bin` or `.ckpt` file gets everything that the suspect's file held, in its places, with
    the new weights instead of the old ones; so do averaged copies of the old ones. `.safetensors` gets the weights
    under the names they had. A name without a suffix is a folder, for suspects that are one. `.onnx` is the network
    itself, for batches of any size of normalised images.

    Args:
        path: The file or the folder.
        network: The network.
        image: (1, C, H, W), what the network takes: for `.onnx`.
        like: What the suspect was read from, if it was read.
        prefix: What stood before each name there, and does not in the network.

    Raises:
        InputError: If a library is missing that the format needs.
    """
    own = {name: value.detach().cpu() for name, value in network.state_dict().items()}
    if like is not None and like.folder is not None:
        state = named_as_in_folder(network, like, prefix)
    else:
        state = own if like is None else _renamed(own, like.weights, prefix)
    if path.suffix == ".onnx":
        write_whole(path, lambda file: _onnx(Path(file.name), network, image))
    elif is_folder(path) and like is not None:
        write_folder(path, state, like)
    elif path.suffix == ".safetensors":
        from safetensors.torch import save

        # Every tensor its own: the format knows no tensors that share memory.
        separate = {name: value.clone(memory_format=torch.contiguous_format) for name, value in state.items()}
        write_whole(path, lambda file: file.write(save(separate, {"format": "pt"})))
    else:
        content = state
        if like is not None and not like.own and like.folder is None and Path(like.path).suffix != ".safetensors":
            content = _replaced(like.content, {name: value for name, value in own.items() if prefix + name in state})
        write_whole(path, lambda file: torch.save(content, file))


def check(path: Path, like: Checkpoint | None, option: Given) -> None:
    """Refuse a file or a folder that could not be written in the end.

    Args:
        path: The file or the folder.
        like: What the suspect was read from, if it was read.
        option: The parameter that named it, for messages.

    Raises:
        InputError: If a library is missing that its format needs, or it is a folder and the suspect is none.
    """
    if is_folder(path):
        check_folder(path, like, option)
    if path.suffix == ".onnx":
        try:
            import onnx  # noqa: F401
            import onnxscript  # noqa: F401
        except ImportError as error:
            raise InputError(*option, f'needs {error.name}: pip install "bdclean[onnx]"') from error


def _renamed(state: Mapping[str, Tensor], old: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The new weights under the old names, in their order and of their types. What the network lacks stays."""
    new = {prefix + name: value for name, value in state.items()}
    return {name: new.get(name, value).to(value.dtype) for name, value in old.items()}


def _replaced(content: Any, new: Mapping[str, Tensor], done: dict[int, Any] | None = None) -> Any:
    """The same content, with the new weights wherever others of the same names are, whatever stands before these."""
    # What is in several places is replaced once: dictionaries may hold each other, and themselves.
    done = {} if done is None else done
    if not isinstance(content, dict) or id(content) in done:
        return done.get(id(content), content)
    result = done[id(content)] = copy.copy(content)  # an OrderedDict's versions of its layers come along
    prefix = _common_prefix(content, new)
    if prefix is not None:
        result.update({prefix + name: value.to(content[prefix + name].dtype) for name, value in new.items()})
        return result
    for key, value in content.items():
        result[key] = _replaced(value, new, done) if isinstance(key, str) else value
    return result


def _common_prefix(content: Mapping[Any, Any], weights: Mapping[str, Tensor]) -> str | None:
    """What stands before the names of all of some weights in a dictionary; None if they are not in it."""
    longest = max(weights, key=len)
    prefixes = (key.removesuffix(longest) for key in content if isinstance(key, str) and key.endswith(longest))
    shapes = {name: value.shape for name, value in weights.items()}
    return next(
        (
            prefix
            for prefix in prefixes
            if all(getattr(content.get(prefix + name), "shape", None) == shape for name, shape in shapes.items())
        ),
        None,
    )


def _onnx(path: Path, network: nn.Module, image: Tensor) -> None:
    training = network.training
    batch = torch.export.Dim("batch", min=1, max=2**16)
    try:
        torch.onnx.export(
            network.eval(),
            (torch.cat([image, image]),),
            path,
            input_names=["images"],
            output_names=["logits"],
            dynamic_shapes=({0: batch},),
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    finally:
        network.train(training)


def write_whole(path: Path, save: Callable[[BinaryIO], object]) -> None:
    """Write a file whole or not at all.

    Args:
        path: The file. If it is a link, the file that it leads to is replaced.
        save: Writes to a file of another name in the same folder, which gets the path's name in the end.

    Raises:
        OSError: With the path, if the system refuses: the disk is full, the name too long.
    """
    final = Path(os.path.realpath(path))
    # Short, so that it is no longer than what the path's own name can be.
    temporary = final.with_name(f".bdclean.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        with open(temporary, "xb") as file:
            save(file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(final)
    except Exception as error:
        refusal = _refusal(error)
        if refusal is None:
            raise
        raise OSError(refusal.errno, refusal.strerror, str(path)) from error
    finally:
        with suppress(OSError):
            temporary.unlink()


def write_text(path: Path, text: str) -> None:
    """Write a text in UTF-8, whole or not at all: as `write_whole`."""
    # Names of files may hold bytes that are no UTF-8.
    write_whole(path, lambda file: file.write(text.encode(errors="backslashreplace")))


def _refusal(error: BaseException | None) -> OSError | None:
    """The error of the system behind another: torch makes a RuntimeError of it."""
    while error is not None and not (isinstance(error, OSError) and error.errno is not None):
        error = error.__cause__ or error.__context__
    return error
