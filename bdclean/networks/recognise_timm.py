"""Recognising weights of timm and transformers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from bdclean import first_ten
from bdclean.errors import Given, InputError
from bdclean.networks.build import build_network, input_channels, usual_size
from bdclean.networks.outputs import find_tensor, noise
from bdclean.networks.recognise import Recognised, Shapes, compare, known_shapes, prefixes, shapes_of, without

FEWEST = 20
"""Minimum number of tensors of a timm network; fewer are not tried."""
SHARED = 0.5
"""Minimum share of a family's part names that the weights of its networks contain."""
TOLERANCE = 1e-3
"""Largest difference of logits, relative to the largest logit, of networks that compute the same function."""
BEGINNINGS = ("embeddings.", "embedder.", "patch_embeddings.", "conv_stem.")
"""First parts of transformers networks, after the name of the base model."""
PARTS = (*BEGINNINGS, "encoder.", "layers.", "layer.", "layernorm.", "norm.", "pooler.")
"""All parts of transformers networks."""


def recognise_timm(weights: Mapping[str, Tensor], option: Given) -> Recognised | None:
    """Find the timm network that fits weights.

    Args:
        weights: A `state_dict`, with any known prefixes.
        option: The parameter that named the file, for messages.

    Returns:
        The network; None if none fits or timm is not installed.

    Raises:
        InputError: If several networks fit that compute different functions.
    """
    try:
        import timm
    except ImportError:
        return None
    if len(weights) < FEWEST:
        return None
    given = without(shapes_of(weights), prefixes([*weights])[-1])
    families: dict[str, list[str]] = {}
    for name in timm.list_models():
        families.setdefault(timm.models.model_entrypoint(name).__module__, []).append(name)
    # Among equal networks, the shortest name comes first.
    for members in sorted(families.values(), key=len, reverse=True):
        members.sort(key=lambda name: (len(name), name))
        if _alike(members[0], given) and (fits := [found for name in members if (found := _fitting(name, given))]):
            return _the_same(fits, weights, option)
    return None


def of_transformers(names: Sequence[str]) -> str | None:
    """The base model's name in transformers, from the names of tensors; None if the names are of another library."""
    first = [name.partition(".")[0] for name in names]
    base = max({*first}, key=first.count)
    inside = [name.removeprefix(f"{base}.") for name in names if name.startswith(f"{base}.")]
    has_head = any(name.startswith(("classifier.", "head.")) for name in names)
    has_parts = any(name.startswith(BEGINNINGS) for name in inside) and all(name.startswith(PARTS) for name in inside)
    return base if has_head and has_parts else None


def _alike(name: str, given: Shapes) -> bool:
    """Whether the weights contain most part names of a family's first network."""
    found = _shapes(name)
    known_parts, parts = ({one.partition(".")[0] for one in shapes} for shapes in (found, given))
    return bool(known_parts) and len(known_parts & parts) >= SHARED * len(known_parts)


def _shapes(name: str) -> Shapes:
    try:
        return known_shapes(f"timm/{name}", None, usual_size(f"timm/{name}", None))
    except Exception:  # some networks cannot be built without data, or need other libraries
        return {}


def _fitting(name: str, given: Shapes) -> Recognised | None:
    if not _shapes(name):
        return None
    arch = f"timm/{name}"
    found, wrong = compare(arch, None, given, usual_size(arch, None))
    return None if wrong else found


@torch.no_grad()
def _the_same(fits: Sequence[Recognised], weights: Mapping[str, Tensor], option: Given) -> Recognised:
    """The first of the fitting networks, after checking that all of them compute the same logits."""
    best, *others = fits
    size = usual_size(best.arch, None)
    state = without(weights, prefixes([*weights])[-1])
    images = noise(input_channels(best.arch), size)
    wanted: Tensor | None = None
    different = []
    for one in fits if others else ():
        network = build_network(one.arch, one.num_classes, usual_size(one.arch, None)).eval()
        network.load_state_dict(state, strict=False)
        if usual_size(one.arch, None) != size:
            continue
        logits = find_tensor(network(images))[0]
        wanted = logits if wanted is None else wanted
        if (logits - wanted).abs().max() > TOLERANCE * wanted.abs().max():
            different.append(one.arch)
    if different:
        raise InputError(
            "model.arch",
            None,
            f"needed, as {option.value} fits {best.arch} and {first_ten(different)}, which compute different functions",
        )
    return best
