"""Copies of networks that a user wrote, and which networks cannot be trained at all."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.jit import ScriptModule
from torch.nn.parameter import is_lazy

from bdclean.errors import InputError


def duplicate(network: nn.Module) -> nn.Module:
    """A copy of a network with values of its own.

    Old-style pruning and weight norm keep a weight that they computed, with its gradient's history, which `deepcopy`
    refuses to copy: the copy gets its value.

    Raises:
        InputError: If it cannot be copied.
    """
    try:
        return copy.deepcopy(network, {id(value): value.detach().clone() for value in _computed(network)})
    except Exception as error:  # a network can hold anything
        raise InputError("model.arch", None, f"cannot be copied ({error})") from error


def frozen(network: nn.Module) -> nn.Module:
    """The same network in eval mode and without gradients, as modules of their own that share its values."""
    shared: dict[int, Any] = {id(value): value.detach() for value in (*network.buffers(), *_computed(network))}
    shared |= {id(value): nn.Parameter(value.detach(), requires_grad=False) for value in network.parameters()}
    return copy.deepcopy(network, shared).eval()


def _computed(network: nn.Module) -> list[Tensor]:
    """Tensors that modules keep and autograd has made."""
    kept = (value for module in network.modules() for value in vars(module).values())
    return [value for value in kept if isinstance(value, Tensor) and not value.is_leaf]


def check_trainable(network: nn.Module) -> None:
    """Refuse a network whose weights cannot be trained as real numbers.

    Raises:
        InputError: If it has weights without values or of a kind that has no gradient; the message names one.
    """
    if isinstance(network, ScriptModule):
        raise InputError("model.arch", None, "is a TorchScript program: take the module that it was compiled from")
    for name, value in (*network.named_parameters(), *network.named_buffers()):
        if is_lazy(value):
            raise InputError("model.arch", None, f"{name} is not initialised: run the network on one batch first")
        if value.is_meta:
            raise InputError(
                "model.arch", None, f"{name} is on the meta device, so it has no values: load the weights first"
            )
        if value.is_complex():
            raise InputError("model.arch", None, f"{name} holds complex numbers; only real networks can be cleansed")
    for name, module in network.named_modules():
        if ".quantized" in type(module).__module__:
            raise InputError(
                "model.arch",
                None,
                f"{name or type(module).__name__} is quantised, so it has no gradient: take the network "
                "as it was before quantisation",
            )


def check_gradient(network: nn.Module, images: Tensor) -> None:
    """Refuse a network that hides how its outputs depend on its inputs.

    Args:
        network: From images to logits.
        images: (N, C, H, W).

    Raises:
        InputError: If the logits carry no gradient.
    """
    with torch.enable_grad():
        logits = network(images.detach().requires_grad_())
    if not logits.requires_grad:
        raise InputError(
            "model.arch",
            None,
            "its outputs carry no gradient, as after torch.no_grad() or detach(), and scans and training need one",
        )


def renewed(network: nn.Module) -> nn.Module:
    """A copy of a network with new weights, as its layers begin."""
    copied = duplicate(network)
    for module in copied.modules():
        if callable(reset := getattr(module, "reset_parameters", None)):
            reset()
    return copied
