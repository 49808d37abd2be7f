"""Channels that amplify their input more than the others of their layer, found from the weights alone."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


def channel_lipschitz(weight: Tensor, scales: Tensor | None = None) -> Tensor:
    """An upper bound of the Lipschitz constant of each output channel of a layer.

    For channel k, it is the spectral norm of its weights as a matrix of input channels by kernel positions, times
    |scale|.

    Args:
        weight: (out, in, ...) of a convolution, or (out, in) of a linear layer.
        scales: (out,) factor of each channel in the norm layer after it.

    Returns:
        (out,), at least 0.
    """
    matrices = weight.flatten(2) if weight.ndim > 2 else weight[:, :, None]
    bounds = torch.linalg.matrix_norm(matrices.float(), ord=2)
    return bounds if scales is None else bounds * scales.abs()


def amplification(layer: nn.Module, norm: nn.Module | None) -> Tensor:
    """The `channel_lipschitz` of a layer with the norm layer behind it.

    A batch norm multiplies channel k by gamma_k / sqrt(var_k + eps). Other norm layers contribute gamma_k alone, as
    their divisor depends on the image.

    Args:
        layer: A convolution or linear layer.
        norm: The norm layer that acts on its output channels, if there is one.

    Returns:
        (out,), at least 0.
    """
    weight: Any = layer.weight
    scales: Any = None if norm is None else norm.weight
    variance: Any = getattr(norm, "running_var", None)
    if variance is not None:
        assert norm is not None
        scales = scales / (variance + norm.eps).sqrt()
    return channel_lipschitz(weight, scales)


def outliers(values: Tensor, u: float) -> Tensor:
    """Which of (n,) values are above their mean by more than u standard deviations: (n,) bool."""
    return values > values.mean() + u * values.std()
