"""Which network of timm some weights belong to, or whether they are transformers'."""

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
"""Tensors that each network of timm has; below that none is tried."""
SHARED = 0.5
"""Of the names of a family's parts, so many are in the weights of one of its networks."""
TOLERANCE = 1e-3
"""By how much the logits of two networks may differ, relative to the largest, if they compute the same."""
BEGINNINGS = ("embeddings.", "embedder.", "patch_embeddings.", "conv_stem.")
"""The first part of transformers' networks, after the name of the whole."""
PARTS = (*BEGINNINGS, "encoder.", "layers.", "layer.", "layernorm.", "norm.", "pooler.")
"""All of their parts."""


def recognise_timm(weights: Mapping[str, Tensor], option: Given) -> Recognised | None:
    """Find the network of timm that weights belong to.

    Args:
        weights: A `state_dict`, with any of the usual prefixes.
        option: The parameter that named it, for messages.

    Returns:
        The network; None if the weights fit none of them, or timm is not installed.

    Raises:
        InputError: If they fit several, which compute different things.
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
    # The plainest name of networks that are the same comes first.
    for members in sorted(families.values(), key=len, reverse=True):
        members.sort(key=lambda name: (len(name), name))
        if _alike(members[0], given) and (fits := [found for name in members if (found := _fitting(name, given))]):
            return _the_same(fits, weights, option)
    return None


def of_transformers(names: Sequence[str]) -> str | None:
    """What transformers calls the network whose tensors have such names; None if they are not transformers'."""
    first = [name.partition(".")[0] for name in names]
    whole = max({*first}, key=first.count)
    own = [name.removeprefix(f"{whole}.") for name in names if name.startswith(f"{whole}.")]
    has_head = any(name.startswith(("classifier.", "head.")) for name in names)
    described = any(name.startswith(BEGINNINGS) for name in own) and all(name.startswith(PARTS) for name in own)
    return whole if has_head and described else None


def _alike(name: str, given: Shapes) -> bool:
    """Whether the parts of a family's first network have names of the weights."""
    found = _shapes(name)
    theirs, parts = ({one.partition(".")[0] for one in shapes} for shapes in (found, given))
    return bool(theirs) and len(theirs & parts) >= SHARED * len(theirs)


def _shapes(name: str) -> Shapes:
    try:
        return known_shapes(f"timm/{name}", None, usual_size(f"timm/{name}", None))
    except Exception:  # some cannot be made without data, or need other libraries
        return {}


def _fitting(name: str, given: Shapes) -> Recognised | None:
    if not _shapes(name):
        return None
    arch = f"timm/{name}"
    found, wrong = compare(arch, None, given, usual_size(arch, None))
    return None if wrong else found


@torch.no_grad()
def _the_same(fits: Sequence[Recognised], weights: Mapping[str, Tensor], option: Given) -> Recognised:
    """The first of some networks that weights fit, if all compute the same with them."""
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
            f"needed, as {option.value} fits {best.arch} and {first_ten(different)}, which compute different things",
        )
    return best
