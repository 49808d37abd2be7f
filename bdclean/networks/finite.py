"""Refusing networks whose logits are not finite, with the name of the layer that causes it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.jit import ScriptModule
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.hooks import RemovableHandle

from bdclean.errors import Given, InputError
from bdclean.networks.probe import in_eval_mode


@torch.no_grad()
def check_finite(network: nn.Module, images: Tensor, what: Given) -> Tensor:
    """Refuse a network that outputs nan or inf. Its mode and statistics are not changed.

    Args:
        network: Maps images in [0, 1] to logits.
        images: (N, C, H, W).
        what: The parameter that the message names.

    Returns:
        The logits, (N, classes).

    Raises:
        InputError: If a logit is not finite; the message names the first layer with such outputs.
    """
    with in_eval_mode(network):
        logits: Tensor = network(images)
        if logits.isfinite().all():
            return logits
        share = 100 * float((~logits.isfinite()).any(1).float().mean())
        culprit = _first_culprit(network, images)
    raise InputError(*what, f"the network outputs nan or inf for {share:.0f} % of the images{culprit}")


def _first_culprit(network: nn.Module, images: Tensor) -> str:
    """The first layer with finite inputs and non-finite outputs, as the end of a sentence; empty if there is none."""
    found: list[tuple[str, nn.Module]] = []

    def watch(name: str, part: nn.Module) -> RemovableHandle:
        def record(_module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            if isinstance(output, Tensor) and not output.isfinite().all() and all(map(_is_finite, inputs)):
                found.append((name, part))

        return part.register_forward_hook(record)

    parts = {name: part for name, part in network.named_modules() if not isinstance(part, ScriptModule)}
    hooks = [watch(name, part) for name, part in parts.items() if name and not list(part.children())]
    try:
        network(images)
    finally:
        for hook in hooks:
            hook.remove()
    if not found:
        return ""
    name, part = found[0]
    return f"; {name.removeprefix('network.')} ({type(part).__name__}) is the first part to do so{_reason(part)}"


def _is_finite(value: Any) -> bool:
    return not isinstance(value, Tensor) or bool(value.isfinite().all())


def _reason(module: nn.Module) -> str:
    """The extreme value among a layer's parameters and buffers, as the end of a sentence."""
    if isinstance(module, _BatchNorm) and module.running_var is not None and module.running_var.min() < 0:
        return f": its running_var falls to {float(module.running_var.min()):.3g}"
    values = [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
    largest = [
        (float(value.abs().max()), name) for name, value in values if value.is_floating_point() and value.numel()
    ]
    if not largest:
        return ""
    size, name = max(largest)
    return f": its {name} reaches {size:.3g}"
