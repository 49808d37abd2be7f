"""Layer-wise random re-initialisation."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from bdclean.models import weights


def stage_ratios(stages: int) -> list[float]:
    """Ratios for a network of so many stages, stem and head included: the paper's, for any depth.

    The stem has .01 and the head .10; between them the ratio grows from .01 by a constant factor to .27, which for four
    stages gives the paper's .01 .03 .09 .27.
    """
    inner = stages - 2
    if inner < 1:
        return [0.01, 0.10][:stages]
    return [0.01, *(0.01 * 27 ** (i / (inner - 1)) if inner > 1 else 0.27 for i in range(inner)), 0.10]


@torch.no_grad()
def reinitialise(network: nn.Module, ratios: Mapping[str, float], generator: torch.Generator) -> None:
    """Replace random weights of a network, in place, by freshly initialised ones.

    Each weight w of a layer with ratio p becomes m w' + (1 - m) w, with m ~ Bernoulli(p) for each element and w' drawn
    by the layer's own initialiser. Nothing is rescaled; biases and norm layers keep what they have.

    Source: Pang, Sun, Ling, Chen, "Backdoor Cleansing with Unlabeled Data", CVPR 2023.

    Args:
        network: The network.
        ratios: Name of a layer to its p, in [0, 1].
        generator: On the CPU; the same state replaces the same weights by the same values, on any device.
    """
    seed = int(torch.randint(2**62, (1,), generator=generator))
    with torch.random.fork_rng(devices=[]):
        # The layers' own initialisers draw from the global generator, and from no other.
        torch.manual_seed(seed)
        for name, ratio in ratios.items():
            layer = network.get_submodule(name)
            fresh = _fresh(layer)
            for key, weight in weights(layer).items():
                if key in fresh:
                    mask = torch.rand(weight.shape, generator=generator) < ratio
                    weight.copy_(torch.where(mask, fresh[key], weight.cpu()))


def _fresh(layer: nn.Module) -> dict[str, Tensor]:
    """Freshly initialised weights of a layer, by their names.

    Where the weight is made of other tensors (normalised, pruned), those of its shape are initialised as it would be.
    """
    own = weights(layer)
    if "weight" in own or not isinstance(layer, (nn.Linear, _ConvNd)):
        fresh = copy.deepcopy(layer).cpu()
        # Attention keeps its initialiser to itself.
        initialise: Any = getattr(fresh, "reset_parameters", None) or fresh._reset_parameters
        initialise()
        return {key: fresh.get_parameter(key) for key in own}
    shape = layer.weight.shape
    drawn = {key: torch.empty(value.shape) for key, value in own.items() if value.shape == shape}
    for value in drawn.values():
        # As PyTorch initialises linear and convolutional layers.
        nn.init.kaiming_uniform_(value, a=math.sqrt(5))
    return drawn
