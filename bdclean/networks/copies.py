"""Copying a user's networks, and refusing networks that cannot be trained."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.jit import ScriptModule
from torch.nn.parameter import is_lazy

from bdclean.errors import InputError


def duplicate(network: nn.Module) -> nn.Module:
    """A copy of a network that shares no tensors with it.

    `torch.nn.utils.prune` and the old `weight_norm` store a computed weight with its autograd history, which `deepcopy`
    refuses to copy: the copy gets the weight without the history.

    Raises:
        InputError: If the network cannot be copied.
    """
    try:
        return copy.deepcopy(network, {id(value): value.detach().clone() for value in _computed(network)})
    except Exception as error:  # a network can hold anything
        raise InputError("model.arch", None, f"cannot be copied ({error})") from error


def frozen(network: nn.Module) -> nn.Module:
    """A copy of a network in eval mode and without gradients, which shares the memory of its tensors."""
    shared: dict[int, Any] = {id(value): value.detach() for value in (*network.buffers(), *_computed(network))}
    shared |= {id(value): nn.Parameter(value.detach(), requires_grad=False) for value in network.parameters()}
    return copy.deepcopy(network, shared).eval()


def _computed(network: nn.Module) -> list[Tensor]:
    """Tensors in the attributes of modules that autograd has computed."""
    attributes = (value for module in network.modules() for value in vars(module).values())
    return [value for value in attributes if isinstance(value, Tensor) and not value.is_leaf]


def check_trainable(network: nn.Module) -> None:
    """Refuse a network whose weights cannot be trained.

    Raises:
        InputError: If it has weights without values, or complex or quantised weights; the message names one.
    """
    if isinstance(network, ScriptModule):
        raise InputError("model.arch", None, "is a TorchScript program: use the module that it was compiled from")
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
    """Refuse a network whose outputs carry no gradient with respect to its inputs.

    Args:
        network: Maps images to logits.
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
    """A copy of a network with newly initialised weights."""
    copied = duplicate(network)
    for module in copied.modules():
        if callable(reset := getattr(module, "reset_parameters", None)):
            reset()
    return copied
