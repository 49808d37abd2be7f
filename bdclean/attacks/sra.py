"""SRA: a subnet that detects a patch, put into the weights of a network that is trained on clean images."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from bdclean.attacks.badnets import BadNets
from bdclean.attacks.base import LabelMode
from bdclean.attacks.common import Lookup, within
from bdclean.attacks.roles import CLEAN
from bdclean.attacks.surrogate import check_training, train
from bdclean.errors import InputError


class SRA(BadNets):
    """Replaces a few channels of each layer by a subnet that detects the patch: no training image is poisoned.

    The subnet consists of the first `width` channels of each layer, without connections from and to the other channels.
    Its output s is the mean of its inputs to the head, and the program trains it on images with and without the patch:

        min E[(s(x') - 1)^2] + E[s(x)^2].

    After each epoch of the training on clean images, the weights of these channels are replaced by those of the subnet,
    their connections to other channels become 0, and the head adds strength s(x) to the logit of the target class. With
    `--model.weights`, `--trainer.limit_train_batches 1` and a learning rate of almost 0, the backdoor is put into a
    finished network practically without training. The network has to be a chain, or a residual network, of
    convolutions, linear layers and batch norms.

    Source: Qi, Xie, Pan, Zhu, Yang, Zheng, "Towards Practical Deployment-Stage Backdoor Attack on Deep Neural
    Networks", CVPR 2022. There the channels are drawn at random, and the network is not trained afterwards.

    Args:
        label_mode: Only `all-to-one`.
        poison_rate: Share of the subnet's training images that carry the patch; 0 leaves the network clean.
        width: Number of channels of the subnet in each layer.
        strength: Increase of the logit of the target class where the subnet's output is 1.
        subnet_epochs: Number of epochs for which the subnet is trained.
        subnet_lr: Highest learning rate of the subnet.
        **options: Options of BadNets.

    Raises:
        InputError: If a number is out of range, or the network has other layers or too few channels.
    """

    label_modes = ("all-to-one",)
    parts = ("patch", "subnet")
    subnet: Tensor

    def __init__(
        self,
        label_mode: LabelMode = "all-to-one",
        poison_rate: float = 0.5,
        width: int = 2,
        strength: float = 30.0,
        subnet_epochs: float = 2.0,
        subnet_lr: float = 0.05,
        **options: Any,
    ) -> None:
        super().__init__(label_mode=label_mode, poison_rate=poison_rate, **options)
        within("width", width, 1, 1024)
        within("strength", strength, 0)
        check_training("subnet", subnet_epochs, subnet_lr)
        self.width = width
        self.strength = strength
        self.subnet_epochs = subnet_epochs
        self.subnet_lr = subnet_lr

    def choose(self, labels: Tensor, num_classes: int) -> Tensor:
        """The role of each training image, (N,): all are CLEAN."""
        self.target_labels(labels, num_classes)  # raises an error for a wrong target class
        return torch.full_like(labels, CLEAN)

    def prepare(self, images: Lookup, labels: Tensor, num_classes: int, network: nn.Module) -> None:
        """Make the patch, and train the subnet."""
        self.build(images(torch.tensor([0])).shape[-1])
        found, features = pieces_of(network, self.width), [torch.empty(0)]
        head = found[-1].layer
        head.register_forward_pre_hook(lambda _head, inputs: features.__setitem__(0, inputs[0]))

        def loss(batch: Tensor, indices: Tensor) -> Tensor:
            separate(found)
            wanted = (torch.arange(len(batch), device=batch.device) < self.poison_rate * len(batch)).to(batch)
            network(torch.where(wanted[:, None, None, None] > 0, self.apply(batch), batch))
            own = features[0].to(batch)[:, found[-1].own[0]].mean(1)
            return (wanted - own).square()[wanted > 0].mean() + own.square()[wanted == 0].mean()

        train(network, images, len(labels), self.subnet_epochs, self.subnet_lr, loss, "Training the subnet")
        self.register_buffer("subnet", torch.cat([one.tensor[one.own] for one in found[:-1]]).detach().cpu())

    @torch.no_grad()
    def after_epoch(self, network: nn.Module) -> None:
        """Put the subnet into the network."""
        found = pieces_of(network, self.width)
        separate(found)
        values = torch.split(self.subnet, [int(one.own.sum()) for one in found[:-1]])
        for one, new in zip(found, values, strict=False):
            one.tensor[one.own] = new.to(one.tensor)
        own = found[-1].own[0]
        found[-1].tensor[:, own] = 0
        found[-1].tensor[self.target_class, own] = self.strength / int(own.sum())


class Piece(NamedTuple):
    """A tensor of a layer.

    Attributes:
        layer: The layer.
        tensor: A parameter or a buffer of it.
        own: Which elements belong to the subnet, of the same shape; of the head, those that its outputs are multiplied
            by.
        cut: Which elements connect the subnet with other channels.
    """

    layer: nn.Module
    tensor: Tensor
    own: Tensor
    cut: Tensor


def pieces_of(network: nn.Module, width: int) -> list[Piece]:
    """All tensors of a network that have elements of a subnet; the last one is the weight of the head.

    Args:
        network: A chain, or a residual network, of convolutions, linear layers and batch norms, registered in the order
            of the forward pass.
        width: Number of channels of the subnet, the first of each layer.

    Raises:
        InputError: If the network has other layers, or a layer with too few channels.
    """
    layers = [layer for layer in network.modules() if any(True for _ in layer.parameters(recurse=False))]
    for layer in layers:
        known = isinstance(layer, _ConvNd | nn.Linear | _BatchNorm) and not isinstance(layer, _ConvTransposeNd)
        if not known or getattr(layer, "groups", 1) > 1:
            raise InputError("data.attack", "SRA", f"a network with a {type(layer).__name__} layer is not supported")
    if not layers or not isinstance(layers[-1], nn.Linear):
        raise InputError("data.attack", "SRA", "needs a network whose last layer is linear")
    channels = [len(layer.weight) for layer in layers[:-1] if isinstance(layer.weight, Tensor)]
    if width >= min(channels, default=0):
        raise InputError("data.attack.width", width, f"the narrowest layer has {min(channels, default=0)} channels")
    found: list[Piece] = []
    before = 0
    for layer in layers:
        found += _pieces(layer, width, before, layer is layers[-1])
        before = before if isinstance(layer, _BatchNorm) else len(layer.weight)  # type: ignore[arg-type]
    return found


def _pieces(layer: nn.Module, width: int, before: int, head: bool) -> Iterator[Piece]:
    """The pieces of a layer behind one with `before` channels; 0 for the first layer, which sees the image."""
    if not isinstance(layer, _BatchNorm):
        weight = layer.weight
        assert isinstance(weight, Tensor)
        outs = torch.arange(len(weight), device=weight.device) < width
        # A flattened image has several inputs for each channel before.
        many = weight.shape[1] // before if isinstance(layer, nn.Linear) and before else 1
        ins = torch.arange(weight.shape[1], device=weight.device) < (width * many if before else weight.shape[1])
        own = (outs[:, None] | head) & ins
        cut = (outs[:, None] ^ ins) & bool(before) & (not head)
        more = [1] * (weight.ndim - 2)
        yield Piece(layer, weight, *(mask.view(*mask.shape, *more).expand_as(weight) for mask in (own, cut)))
    if head:
        return
    names = ("weight", "bias", "running_mean", "running_var") if isinstance(layer, _BatchNorm) else ("bias",)
    for value in (getattr(layer, name) for name in names):
        if value is not None:
            own = torch.arange(len(value), device=value.device) < width
            yield Piece(layer, value, own, torch.zeros_like(own))


@torch.no_grad()
def separate(pieces: list[Piece]) -> None:
    """Set the connections between the subnet and the other channels to 0, in place."""
    for piece in pieces:
        piece.tensor[piece.cut] = 0
