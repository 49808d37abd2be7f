"""Cleanse image classifiers of backdoors with unlabeled images, and train backdoored ones to study them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, overload

from bdclean.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from torch import Tensor, nn

    from bdclean.data import PoisonDataModule
    from bdclean.modules import Suspect
    from bdclean.reporting.filters import Filtering
    from bdclean.reporting.results import Cleansing, Scan

__version__ = "0.1.0"
__all__ = ["InputError", "__version__", "cleanse", "filter", "load", "scan"]


def printable(text: str) -> str:
    """One line of bounded length without control characters: parts of it may come from a hostile file."""
    line = "".join(letter if letter.isprintable() else "?" for letter in " ".join(text.split()))
    return line if len(line) <= 1000 else f"{line[:1000]}..."


def escaped(text: str) -> str:
    """The text with invalid UTF-8 bytes, which file names can hold, as backslash escapes."""
    return text.encode("utf-8", "backslashreplace").decode()


def first_line(error: BaseException) -> str:
    """The first line of another library's error, for a message of this program."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def first_ten(things: Sequence[object]) -> str:
    """The first ten things, for a message, and the number of the remaining ones."""
    return ", ".join(map(str, things[:10])) + (f" and {len(things) - 10} more" if len(things) > 10 else "")


@overload
def cleanse(
    model: nn.Module,
    images: Tensor | str | Path | Iterable[Any],
    *,
    return_result: Literal[False] = False,
    **options: Any,
) -> nn.Module: ...
@overload
def cleanse(
    model: nn.Module, images: Tensor | str | Path | Iterable[Any], *, return_result: Literal[True], **options: Any
) -> tuple[nn.Module, Cleansing]: ...
def cleanse(
    model: nn.Module, images: Tensor | str | Path | Iterable[Any], *, return_result: bool = False, **options: Any
) -> nn.Module | tuple[nn.Module, Cleansing]:
    """Remove a backdoor from a network, with unlabeled images.

    Args:
        model: A module that maps images (N, C, H, H) to logits (N, classes), or to probabilities, log-probabilities,
            one number for two classes, or a tuple, dictionary or object that holds them: a network of your own, of
            timm or transformers, or the network that `load` returns. It is not changed.
        images: A float tensor (N, C, H, H) or a DataLoader of such tensors, normalised as the network expects. A batch
            may be a tuple, whose first entry is used, or a dictionary with `pixel_values` or `image`. Or images in
            [0, 1]: a uint8 tensor, a list or data set of Pillow images, or the name of a folder, of an `.npz` or
            `.npy` file, of a torchvision data set, or `procedural`. Images in [0, 1] need a normalisation, `processor`
            or `mean` and `std`, unless the network is from timm or `load`, which provide it.
        return_result: Whether to return the result as well.
        **options: Any of these, and any option of Lightning's Trainer, such as `accelerator`:

            - `processor`: an image processor of transformers or a data configuration of timm, which provides mean, std
              and size. `images` may be images that it has processed.
            - `mean`, `std`: one number for all channels or one each, or a name for both: `imagenet`, `cifar10`,
              `cifar100`, `gtsrb`, `mnist`, `clip`, `half`, `byte` or `none`.
            - `image_size`: height and width in pixels to which images are resized.
            - `num_unlabeled`: maximum number of images, 5,000 by default.
            - `batch_size`: images per training step.
            - `method`: the name of a class in `bdclean.cleansing`, or a function from a Classifier to a Cleanser.
            - `when_clean`: result if no backdoor is found: `keep`, `gentle` (default) or `strong`.
            - `epochs` (or `max_epochs`): number of epochs, by default the method's.
            - `budget`: a time limit such as `20m`; what does not fit is left out, and the result's `left_out` names it.
            - `seed`: seed of all random numbers, 0 by default.

    Returns:
        The cleansed network: a copy of `model` with other weights, in eval mode, on the model's device. If the
        network should not be trusted, a warning gives the reason. With `return_result`, a pair: the network, and a
        `bdclean.reporting.results.Cleansing`, whose `conclusion` tells whether to trust the network.

    Raises:
        InputError: If the network does not accept the images, cannot be trained (its weights are quantised, complex or
            uninitialised, or its outputs carry no gradient), outputs nan or inf, or an argument is missing or wrong.
    """
    # Importing bdclean is instant, and torch is not.
    from bdclean.api import cleanse as run

    return run(model, images, return_result=return_result, **options)


def scan(model: nn.Module, images: Tensor | str | Path | Iterable[Any], **options: Any) -> Scan:
    """Scan a network for a backdoor, and find its target class.

    Args:
        model: The network, of any kind that `cleanse` accepts. It is not changed.
        images: Unlabeled images, of any kind that `cleanse` accepts.
        **options: `processor`, `mean`, `std`, `image_size`, `num_unlabeled` and `seed`, with the same meaning as in
            `cleanse`; `alpha`, the largest p-value at which a backdoor is reported; `budget`, a time limit such
            as `20m`; and any option of Lightning's Trainer, such as `accelerator`.

    Returns:
        The result. `verdict` has `backdoor` (whether there is one), `suspected` (its target class), `p_value`, a
        `sentence`, and `findings`, whose `trigger` applies a recovered trigger to images; `recovered` has pictures of
        the recovered triggers.

    Raises:
        InputError: For the same reasons as `cleanse`.
    """
    from bdclean.api import scan as run

    return run(model, images, **options)


def filter(  # the name of the command
    model: nn.Module,
    images: Tensor | str | Path | Iterable[Any],
    cleansed: nn.Module | None = None,
    **options: Any,
) -> Filtering:
    """Score images by how likely they carry a trigger, and flag some of them.

    Args:
        model: The suspect, of any kind that `cleanse` accepts. It is not changed.
        images: The images, of any kind that `cleanse` accepts.
        cleansed: The cleansed network, such as the result of `cleanse`, which the score Disagreement needs.
        **options: Any of these, and any option of Lightning's Trainer, such as `accelerator`:

            - `score`: the name of a score (`Disagreement`, the default, `STRIP`, `ScaleUp`, ...), or an object of
              `bdclean.filtering`.
            - `clean`: images that are known to be clean, which set the threshold: a tensor like `images`, or the name
              of a source. Without them, the images with the highest scores are flagged.
            - `alpha`: share of false alarms among clean images, 0.01 by default.
            - `processor`, `mean`, `std`, `image_size` and `seed`, with the same meaning as in `cleanse`.

    Returns:
        The result. `scores` and `flagged` (N,) have an entry for each image, `p_values` too if images are known to be
        clean; `threshold.value` is the score above which images are flagged, `order` lists the most suspicious first.

    Raises:
        InputError: For the same reasons as `cleanse`, or if the score needs something that is missing.
    """
    from bdclean.api_filter import filter as run

    return run(model, images, cleansed, **options)


def load(
    path: str, source: str | None = None, unlabeled: str | None = None, **options: Any
) -> tuple[Suspect, PoisonDataModule]:
    """Read a suspect from a file, with its images and its trigger, for the functions of `bdclean.tasks`.

    Args:
        path: A file of weights, written by `bdclean fit` or another program, or a folder of transformers or timm.
        source: Labelled images; by default the ones that the file names, if the program generates them.
        unlabeled: Other images for the defender; without a source, the program generates them by default.
        **options: `model`, a mapping with arguments of a Suspect that the file does not give; all others are
            arguments of a PoisonDataModule.

    Returns:
        The network and its images.

    Raises:
        InputError: If the file is not a network, or does not describe it completely.
    """
    from bdclean.api import load as run

    return run(path, source, unlabeled, **options)
