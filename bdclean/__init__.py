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
    from bdclean.reporting.results import Cleansing, Scan

__version__ = "0.1.0"
__all__ = ["InputError", "__version__", "cleanse", "load", "scan"]


def printable(text: str) -> str:
    """One line of bounded length without control characters: parts of it may come from a hostile file."""
    line = "".join(letter if letter.isprintable() else "?" for letter in " ".join(text.split()))
    return line if len(line) <= 1000 else f"{line[:1000]}..."


def escaped(text: str) -> str:
    """The same with a backslash where something is no UTF-8, as names of files can be."""
    return text.encode("utf-8", "backslashreplace").decode()


def first_line(error: BaseException) -> str:
    """What an error of somebody else's says, for a message of ours."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def first_ten(things: Sequence[object]) -> str:
    """The first ten of some things, for a message, and how many more there are."""
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
    """Cleanse a network of a backdoor, with images that need no labels.

    Args:
        model: From images (N, C, H, H) to logits (N, classes), or to probabilities, log-probabilities, one number for
            two classes, or a tuple, dictionary or object that holds them: anybody's, one of timm or transformers, or
            the network that `load` returns. It is not changed.
        images: A float tensor (N, C, H, H) or a DataLoader of such: what the network takes. Batches of a loader may be
            tuples, of which the first entry is used, or dictionaries with `pixel_values` or `image`. Or images in
            [0, 1], as a uint8 tensor, a list or a data set of Pillow's pictures, or the name of a folder, of an `.npz`
            or `.npy` file, of a set of torchvision, or `procedural`: these need a normalisation, `processor` or `mean`
            and `std`; networks of timm and those of `load` bring their own.
        return_result: Whether to return what came of it as well.
        **options: `processor`, an image processor of transformers or a data configuration of timm, which says mean, std
            and size; images may be ones that it has processed; `mean` and `std`, one number for all channels or one
            each, or a name for both: `imagenet`, `cifar10`, `cifar100`, `gtsrb`, `mnist`, `clip`, `half`, `byte` or
            `none`; `image_size` in pixels, for images of any size; `num_unlabeled`, the most images that are used,
            5,000 by default; `batch_size`; `method`, the name of a class in `bdclean.cleansing` or a function from a
            Classifier to a Cleanser; `when_clean`, `keep`, `gentle` (default) or `strong`, what to do if no backdoor is
            found; `epochs` (or `max_epochs`), by default the method's own; `seed`; and any option of Lightning's
            Trainer, such as `accelerator`.

    Returns:
        The cleansed network: a copy of `model` with other weights, in eval mode, on the device of the model. If it is
        not to be trusted, a warning says why. With `return_result` a pair: the network, and a
        `bdclean.reporting.results.Cleansing`, whose `conclusion` says whether to trust it.

    Raises:
        InputError: If the network does not take the images, cannot be trained (its weights are quantised, complex or
            not there, or its outputs carry no gradient), outputs nan or inf, or an argument is missing or wrong.
    """
    # Importing bdclean is instant, and torch is not.
    from bdclean.api import cleanse as run

    return run(model, images, return_result=return_result, **options)


def scan(model: nn.Module, images: Tensor | str | Path | Iterable[Any], **options: Any) -> Scan:
    """Find out whether a network has a backdoor, and towards which class.

    Args:
        model: As in `cleanse`.
        images: As in `cleanse`.
        **options: `processor`, `mean`, `std`, `image_size`, `num_unlabeled` and `seed` as in `cleanse`;
            `alpha`, from which p-value down a backdoor is said to be found; and any option of Lightning's Trainer, such
            as `accelerator`.

    Returns:
        What was found: `verdict` has `backdoor`, whether there is one, `suspected`, its class, `p_value`, a `sentence`,
        and `findings`, of which each `trigger` puts onto images what was recovered; `recovered` has pictures of it.

    Raises:
        InputError: As in `cleanse`.
    """
    from bdclean.api import scan as run

    return run(model, images, **options)


def load(
    path: str, source: str | None = None, unlabeled: str | None = None, **options: Any
) -> tuple[Suspect, PoisonDataModule]:
    """Read a suspect from a file, with its images and its trigger, as `bdclean.tasks` take them.

    Args:
        path: The file: one of `bdclean fit`, anybody's, or a folder of transformers or timm.
        source: Labelled images; by default those that the file names, if the program draws them.
        unlabeled: Other images for the defender; by default the program draws some, where there is no source.
        **options: `model`, a mapping with arguments of a Suspect that the file does not say; any others are arguments
            of a PoisonDataModule.

    Returns:
        The network and its images.

    Raises:
        InputError: If the file is no network, or does not say enough of it.
    """
    from bdclean.api import load as run

    return run(path, source, unlabeled, **options)
