"""Write a network in the suspect's format or in another."""

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
    """Write a network atomically, so that it loads in the same way as the suspect.

    A `.pt`, `.pth`, `.tar`, `.bin` or `.ckpt` file gets the whole content of the suspect's file, with the new weights
    in place of the old ones and of averaged copies of them. `.safetensors` gets the weights with their old names. A
    name without a suffix is a folder, for suspects that are folders. `.onnx` is the network itself, for batches of any
    size of normalised images.

    Args:
        path: The file or the folder.
        network: The network.
        image: (1, C, H, W), an input of the network, for `.onnx`.
        like: The suspect's checkpoint; None if the suspect came from memory.
        prefix: Prefix of the names in the checkpoint, which the network's names lack.

    Raises:
        InputError: If the format needs a library that is missing.
    """
    weights = {name: value.detach().cpu() for name, value in network.state_dict().items()}
    if like is not None and like.folder is not None:
        state = named_as_in_folder(network, like, prefix)
    else:
        state = weights if like is None else _renamed(weights, like.weights, prefix)
    if path.suffix == ".onnx":
        write_whole(path, lambda file: _onnx(Path(file.name), network, image))
    elif is_folder(path) and like is not None:
        write_folder(path, state, like)
    elif path.suffix == ".safetensors":
        from safetensors.torch import save

        # Clone each tensor, as safetensors does not support shared memory.
        separate = {name: value.clone(memory_format=torch.contiguous_format) for name, value in state.items()}
        write_whole(path, lambda file: file.write(save(separate, {"format": "pt"})))
    else:
        content = state
        if like is not None and not like.own and like.folder is None and Path(like.path).suffix != ".safetensors":
            new = {name: value for name, value in weights.items() if prefix + name in state}
            content = _replaced(like.content, new)
        write_whole(path, lambda file: torch.save(content, file))


def check(path: Path, like: Checkpoint | None, option: Given) -> None:
    """Check before the work that a file or a folder can be written.

    Args:
        path: The file or the folder.
        like: The suspect's checkpoint; None if the suspect came from memory.
        option: The parameter that named the path, for messages.

    Raises:
        InputError: If the format needs a library that is missing, or the path is a folder and the suspect is a file.
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
    """The new weights with the old names, order and dtypes; weights that the network lacks are kept."""
    new = {prefix + name: value for name, value in state.items()}
    return {name: new.get(name, value).to(value.dtype) for name, value in old.items()}


def _replaced(content: Any, new: Mapping[str, Tensor], done: dict[int, Any] | None = None) -> Any:
    """The content with the new weights in each dictionary that has all of their names, with any prefix."""
    # Replace each dictionary once, as dictionaries may contain each other and themselves.
    done = {} if done is None else done
    if not isinstance(content, dict) or id(content) in done:
        return done.get(id(content), content)
    result = done[id(content)] = copy.copy(content)  # keeps the `_metadata` of an OrderedDict
    prefix = _common_prefix(content, new)
    if prefix is not None:
        result.update({prefix + name: value.to(content[prefix + name].dtype) for name, value in new.items()})
        return result
    for key, value in content.items():
        result[key] = _replaced(value, new, done) if isinstance(key, str) else value
    return result


def _common_prefix(content: Mapping[Any, Any], weights: Mapping[str, Tensor]) -> str | None:
    """The prefix of the names of all weights in a dictionary; None if it does not have all of them."""
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
    """Write a file atomically.

    Args:
        path: The file. If it is a link, its target is replaced.
        save: Writes to a temporary file in the same folder, which is then renamed.

    Raises:
        OSError: With the path, e.g. if the disk is full or the name too long.
    """
    final = Path(os.path.realpath(path))
    # A short name, which does not exceed the system's limit.
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
    """Write a text in UTF-8 atomically: see `write_whole`."""
    # File names in the text may have bytes that are not UTF-8.
    write_whole(path, lambda file: file.write(text.encode(errors="backslashreplace")))


def _refusal(error: BaseException | None) -> OSError | None:
    """The OSError behind another error, as torch raises a RuntimeError."""
    while error is not None and not (isinstance(error, OSError) and error.errno is not None):
        error = error.__cause__ or error.__context__
    return error
