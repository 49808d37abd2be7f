"""Layer-wise random re-initialisation."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from bdclean.errors import InputError, within
from bdclean.networks import find_stages, weights
from bdclean.tables import Description, Table


def stage_ratios(stages: int) -> list[float]:
    """The paper's ratios for any number of stages, including stem and head.

    The stem has .01 and the head .10; between them the ratio grows from .01 by a constant factor to .27, which for four
    stages gives the paper's .01 .03 .09 .27.
    """
    inner = stages - 2
    if inner < 1:
        return [0.01, 0.10][:stages]
    return [0.01, *(0.01 * 27 ** (i / (inner - 1)) if inner > 1 else 0.27 for i in range(inner)), 0.10]


def run_seed(seed: int | None) -> int:
    """The given seed, or by default the seed of the whole run.

    Raises:
        InputError: If it is below 0 or above 2^63 - 1.
    """
    if seed is not None:
        within("method.seed", seed, 0, 2**63 - 1)
    return torch.initial_seed() if seed is None else seed


class Shares:
    """The share of the weights of each layer that is re-initialised.

    Args:
        network: The network.
        image_size: Height and width of its images, in pixels.
        ratios: One number per stage (stem, stages, head), or one for all; None is `stage_ratios`.
        method: Name of the method with the option `ratios`, for messages.

    Attributes:
        layers: The layers and their stages.
        ratios: The share of each stage.

    Raises:
        InputError: If the ratios are not between 0 and 1, or not one for each stage.
    """

    def __init__(
        self, network: nn.Module, image_size: int, ratios: float | Sequence[float] | None, method: str
    ) -> None:
        self.layers = find_stages(network, image_size)
        stages = 1 + max((layer.stage for layer in self.layers), default=-1)
        if not stages:
            raise InputError("method", method, "the network has no convolution or linear layer")
        if ratios is None:
            self.ratios = stage_ratios(stages)
        else:
            self.ratios = [ratios] * stages if isinstance(ratios, (int, float)) else list(ratios)
        if len(self.ratios) != stages:
            raise InputError(
                "method.ratios",
                self.ratios,
                f"{len(self.ratios)} numbers, but the network has {stages} stages: stem, {stages - 2} between, head",
            )
        if not all(0 <= ratio <= 1 for ratio in self.ratios):
            raise InputError("method.ratios", self.ratios, "must be between 0 and 1")

    def reinitialise(self, network: nn.Module, seed: int) -> None:
        """Re-initialise the network in place, reproducibly for a seed."""
        ratios = {layer.name: self.ratios[layer.stage] for layer in self.layers}
        reinitialise(network, ratios, torch.Generator().manual_seed(seed))

    def describe(self) -> Description:
        """The layers and their shares."""
        last = self.layers[-1].stage
        names = {0: "stem", last: "head"}
        rows = []
        for layer in self.layers:
            shapes = ", ".join("x".join(map(str, weight.shape)) for weight in weights(layer.module).values())
            name, stage = layer.name.removeprefix("network."), names.get(layer.stage, layer.stage)
            rows.append((name, shapes, str(stage), f"{self.ratios[layer.stage]:.3g}"))
        return (Table(("layer", "weights", "stage", "re-initialised"), tuple(rows)),)


@torch.no_grad()
def reinitialise(network: nn.Module, ratios: Mapping[str, float], generator: torch.Generator) -> None:
    """Replace random weights of a network in place by newly initialised ones.

    Each weight w of a layer with ratio p becomes m w' + (1 - m) w, with m ~ Bernoulli(p) for each element and w' drawn
    by the layer's own initialiser. Nothing is rescaled; biases and norm layers do not change.

    Source: Pang, Sun, Ling, Chen, "Backdoor Cleansing with Unlabeled Data", CVPR 2023.

    Args:
        network: The network.
        ratios: Maps names of layers to p, in [0, 1].
        generator: A generator on the CPU, so that the result does not depend on the device.
    """
    seed = int(torch.randint(2**62, (1,), generator=generator))
    with torch.random.fork_rng(devices=[]):
        # The layers' initialisers draw from the global generator.
        torch.manual_seed(seed)
        for name, ratio in ratios.items():
            layer = network.get_submodule(name)
            fresh = _fresh(layer)
            for key, weight in weights(layer).items():
                if key in fresh:
                    mask = torch.rand(weight.shape, generator=generator) < ratio
                    weight.copy_(torch.where(mask, fresh[key], weight.cpu()))


def _fresh(layer: nn.Module) -> dict[str, Tensor]:
    """Newly initialised weights of a layer, by name.

    If the weight is computed from other tensors (normalised, pruned), the tensors of its shape are initialised instead.
    """
    current = weights(layer)
    if "weight" in current or not isinstance(layer, (nn.Linear, _ConvNd)):
        fresh = copy.deepcopy(layer).cpu()
        # The initialiser of attention is private.
        initialise: Any = getattr(fresh, "reset_parameters", None) or fresh._reset_parameters
        initialise()
        return {key: fresh.get_parameter(key) for key in current}
    shape = layer.weight.shape
    drawn = {key: torch.empty(value.shape) for key, value in current.items() if value.shape == shape}
    for value in drawn.values():
        # PyTorch's initialisation of linear and convolutional layers.
        nn.init.kaiming_uniform_(value, a=math.sqrt(5))
    return drawn
