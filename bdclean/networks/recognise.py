"""Recognising the architecture of weights from the names and shapes of their tensors."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torchvision import models

from bdclean import first_line
from bdclean.errors import InputError
from bdclean.networks.build import Stem, assemble, usual_size
from bdclean.networks.cifar import FIXED, NETWORKS
from bdclean.networks.cost import WithoutData

PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "network.", "backbone.", "1.")
"""Prefixes that wrappers add to tensor names; `1.` is a network after a transform in an nn.Sequential."""
AUXILIARY = {"googlenet": ("aux1.", "aux2."), "inception_v3": ("AuxLogits.",)}
"""Prefixes of heads that are used in training only: a file may contain them, the built network does not."""
CLOSE = 0.5
"""Largest share of differing tensors, among those of the weights and the network, for a close match."""
MANY = 7919
"""A number of classes that no other dimension has: in a shape it marks the class count."""

Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class Recognised:
    """A known network that fits given weights.

    Attributes:
        arch: Name of the network.
        stem: Its stem, for networks with two stems.
        num_classes: Number of logits.
        image_size: Height and width of its images, in pixels, if the weights depend on it.
    """

    arch: str
    stem: Stem | None
    num_classes: int
    image_size: int | None


def shapes_of(weights: Mapping[str, Tensor]) -> Shapes:
    """Name and shape of each tensor."""
    return {name: tuple(tensor.shape) for name, tensor in weights.items()}


def prefixes(names: Sequence[str]) -> list[str]:
    """The prefixes that most names share, from the empty one to the longest known combination.

    Some names may lack a prefix: a training module may contain the weights of a loss beside the network.
    """
    found = [""]
    while more := [p for p in PREFIXES if 2 * sum(name.startswith(found[-1] + p) for name in names) > len(names)]:
        found.append(found[-1] + more[0])
    return found


def differences(wanted: Shapes, given: Shapes) -> list[str]:
    """The differences that prevent loading weights of shapes `given` into a network of shapes `wanted`.

    Counters of batch norms may be missing, since old versions of PyTorch had none.
    """
    missing = [name for name in wanted if name not in given and not name.endswith("num_batches_tracked")]
    surplus = [name for name in given if name not in wanted]
    shaped = [
        f"{name} is {tuple(given[name])} instead of {tuple(shape)}"
        for name, shape in wanted.items()
        if name in given and tuple(given[name]) != tuple(shape)
    ]
    kinds = [f"missing {name}" for name in missing], [f"surplus {name}" for name in surplus], shaped
    # Alternating, so that the first few differences include every kind.
    return [difference for row in itertools.zip_longest(*kinds) for difference in row if difference is not None]


def best_prefix(wanted: Shapes, given: Shapes, arch: str | None = None) -> tuple[str, list[str]]:
    """The prefix whose removal makes the given names closest to the wanted ones, and the remaining differences."""
    tried = [(prefix, differences(wanted, _used(without(given, prefix), arch))) for prefix in prefixes([*given])]
    return min(tried, key=lambda pair: len(pair[1]))


def without(values: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """The entries whose names have a prefix, with the prefix removed."""
    return {name.removeprefix(prefix): value for name, value in values.items() if name.startswith(prefix)}


def recognise(
    weights: Mapping[str, Tensor], archs: Sequence[str] | None = None, image_size: int | None = None
) -> Recognised | None:
    """Find the known network that fits weights.

    Args:
        weights: A `state_dict`, with any known prefixes.
        archs: Networks to try; by default all known ones, similar families first.
        image_size: Height and width of its images, in pixels, if known: the weights of some timm networks depend on it.

    Returns:
        The network; None if none fits.
    """
    given = without(shapes_of(weights), prefixes([*weights])[-1])
    for arch in _likely(given) if archs is None else archs:
        for stem in _stems(arch):
            found, wrong = compare(arch, stem, given, image_size)
            if not wrong:
                return found
    return None


def closest(weights: Mapping[str, Tensor], archs: Sequence[str] | None = None) -> tuple[Recognised | None, list[str]]:
    """The known network that differs least from weights, and the differences; None if no network is close.

    Args:
        weights: A `state_dict`, with any prefixes.
        archs: Networks to try, one of which is returned even if it is not close; by default all known ones.
    """
    given = without(shapes_of(weights), prefixes([*weights])[-1])
    # Any prefix that all names share, known or not.
    while len(first := {name.partition(".")[0] for name in given}) == 1 and all("." in name for name in given):
        given = without(given, first.pop() + ".")
    best: tuple[Recognised | None, list[str]] = None, []
    least = math.inf
    for arch in archs or _likely(given) or [members[0] for members in _families()]:
        for stem in _stems(arch):
            found = compare(arch, stem, given)
            share = len(found[1]) / (len(given) + len(known_shapes(arch, stem, found[0].image_size)))
            if share < least and (archs is not None or share <= CLOSE):
                best, least = found, share
    return best


def _stems(arch: str) -> tuple[Stem | None, ...]:
    return (None,) if arch in NETWORKS or arch.startswith(("vit_", "timm/")) else ("photo", "small")


def compare(arch: str, stem: Stem | None, given: Shapes, image_size: int | None = None) -> tuple[Recognised, list[str]]:
    """A known network with the class count and the image size of given weights, and the differences.

    Args:
        arch: Name of the network.
        stem: Its stem, for networks with two stems.
        given: Shapes of the weights.
        image_size: Height and width of its images, in pixels, for timm networks whose shapes depend on it.
    """
    given = _used(given, arch)
    size = usual_size(arch, stem) if arch in FIXED else _patched_size(given) if arch.startswith("vit_") else None
    wanted = known_shapes(arch, stem, size or (image_size if arch.startswith("timm/") else None))
    counts = [
        given[name][position]
        for name, shape in wanted.items()
        for position, length in enumerate(shape)
        if length == MANY and name in given and len(given[name]) == len(shape)
    ]
    count = counts[-1] if counts else last_rows(given)
    exact = {name: tuple(count if length == MANY else length for length in shape) for name, shape in wanted.items()}
    return Recognised(arch, stem, count, size), differences(exact, given)


def _used(given: Shapes, arch: str | None) -> Shapes:
    """The shapes without the heads that are used in training only."""
    unused = AUXILIARY.get(arch or "", ())
    return {name: shape for name, shape in given.items() if not name.startswith(unused)}


def last_rows(given: Shapes) -> int:
    """Rows of the last matrix: usually the class count of an unknown network."""
    return next((shape[0] for shape in reversed(given.values()) if len(shape) > 1), 0)


@functools.cache
def known_shapes(arch: str, stem: Stem | None, image_size: int | None) -> Shapes:
    """Shapes of a known network with `MANY` classes."""
    size = image_size or 224
    try:
        with WithoutData():
            return shapes_of(assemble(arch, MANY, size, stem).state_dict())
    except InputError:
        raise
    except (RuntimeError, ValueError, AssertionError) as error:
        raise InputError("model.arch", arch, f"does not take {size}x{size} images ({first_line(error)})") from error


def _patched_size(given: Shapes) -> int | None:
    """The image size of torchvision's vision transformers, whose position embedding has a row per patch."""
    rows, patches = given.get("encoder.pos_embedding"), given.get("conv_proj.weight")
    if rows is None or patches is None or len(rows) != 3 or len(patches) != 4:
        return None
    side = math.isqrt(max(0, rows[1] - 1))
    size = side * patches[-1]
    return size if side * side == rows[1] - 1 and 0 < size <= 4096 else None


def _families() -> list[list[str]]:
    """Groups of known networks: torchvision's by module, each of this package by itself."""
    families: dict[str, list[str]] = {name: [name] for name in NETWORKS}
    for name in models.list_models(module=models):
        families.setdefault(models.get_model_builder(name).__module__, []).append(name)
    return [*families.values()]


def _likely(given: Shapes) -> list[str]:
    """Members of the families whose first network has similar names of parts, most common names first."""
    parts = {name.partition(".")[0] for name in given}
    likely: dict[float, list[str]] = {}
    for members in _families():
        names = {*known_shapes(members[0], None, None)}
        known_parts = {name.partition(".")[0] for name in names}
        if 2 * len(parts & known_parts) >= len(known_parts):
            likely.setdefault(len(names & {*given}) / len(names), []).extend(members)
    return [name for share in sorted(likely, reverse=True) for name in likely[share]]
