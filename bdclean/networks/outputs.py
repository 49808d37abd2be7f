"""Reading logits from networks that output probabilities, one number for two classes, a tuple or a dictionary."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.jit import ScriptModule
from torch.overrides import TorchFunctionMode

from bdclean.errors import InputError
from bdclean.networks.probe import in_eval_mode

Kind = Literal["logits", "log-probabilities", "probabilities", "sigmoids", "one logit", "one probability"]

SENTENCES: dict[Kind, str] = {
    "logits": "",
    "log-probabilities": "it outputs log-probabilities (it ends in log_softmax)",
    "probabilities": "it outputs probabilities (it ends in softmax); bdclean computes with their logarithms",
    "sigmoids": "it outputs one sigmoid per class; bdclean computes with the logits before them",
    "one logit": "it outputs one number, read as the logit of class 1 against class 0",
    "one probability": "it outputs one sigmoid, read as the probability of class 1 against class 0",
}
"""The sentence in messages about each kind of output."""
SMALLEST_PROBABILITY = 1e-38
"""Lower bound of probabilities: the logarithm of 0 is infinite, and subnormal numbers may be flushed to 0."""
TOLERANCE = 1e-3
"""Largest deviation of a row's sum of probabilities from 1."""
SAMPLES = 2
"""Number of noise images for trial forward passes."""


@dataclass(frozen=True)
class Outputs:
    """The kind of a network's outputs.

    Attributes:
        kind: Kind of the numbers.
        width: Numbers per image.
        place: Python expression for their place in a tuple, dictionary or object; empty for a tensor.
    """

    kind: Kind
    width: int
    place: str = ""

    @property
    def num_classes(self) -> int:
        """Number of classes: two if there is one number per image."""
        return max(2, self.width)

    def describe(self) -> str:
        """Describe unusual outputs, in a sentence without a full stop; empty for a tensor of logits."""
        source = f"its outputs are read from output{self.place}" if self.place else ""
        return "; ".join(part for part in (source, SENTENCES[self.kind]) if part)


class _Sigmoids(TorchFunctionMode):
    """Collects the results of sigmoid functions while it is active.

    Numbers between 0 and 1 need not be probabilities, since logits may be small too.
    """

    def __init__(self) -> None:
        super().__init__()
        self.results: list[Tensor] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if getattr(func, "__name__", "") in ("sigmoid", "special_expit") and isinstance(result, Tensor):
            self.results.append(result)
        return result


class _ReadLogits:
    """A forward hook that converts a network's outputs to logits (N, classes)."""

    def __init__(self, kind: Kind, width: int) -> None:
        self.kind, self.width = kind, width

    def __call__(self, _module: nn.Module, _inputs: Any, outputs: Any) -> Tensor:
        return to_logits(find_tensor(outputs, self.width)[0], self.kind)


class _SkipEnding:
    """A forward hook of a final Softmax or Sigmoid module that returns log-probabilities or logits instead.

    If a softmax has rounded to 0, its logarithm has lost the information that log_softmax keeps.
    """

    def __call__(self, module: nn.Module, inputs: tuple[Tensor, ...], _outputs: Tensor) -> Tensor:
        return inputs[0] if isinstance(module, nn.Sigmoid) else inputs[0].log_softmax(1)


def find_tensor(outputs: Any, width: int | None = None) -> tuple[Tensor, str]:
    """Find the tensor of logits or probabilities, (N, C), in a network's output, and its place there.

    Among several tensors, the one called `logits` is preferred, then the first with `width` columns, then the first
    with the fewest columns: the others are probably features.

    Args:
        outputs: Output of the network.
        width: Expected number of columns, if known.

    Raises:
        InputError: If there is no such tensor.
    """
    if isinstance(outputs, Tensor):
        if not outputs.is_floating_point():
            raise InputError("model.arch", None, f"outputs {outputs.dtype}: perhaps class numbers, but not logits")
        return (outputs[:, None] if outputs.ndim == 1 else outputs), ""
    named = getattr(outputs, "logits", None)
    if isinstance(named, Tensor):
        return named, ".logits"
    items: list[tuple[Any, Any]] = []
    if isinstance(outputs, Mapping):
        items = list(outputs.items())
    elif isinstance(outputs, (tuple, list)):
        items = list(enumerate(outputs))
    found = [(key, value) for key, value in items if isinstance(value, Tensor) and value.ndim == 2]
    found = [(key, value) for key, value in found if value.is_floating_point()]
    if found:
        key, value = min(found, key=lambda one: (one[0] != "logits", one[1].shape[1] != width, one[1].shape[1]))
        return value, f"[{key!r}]"
    raise InputError(
        "model.arch", None, f"outputs {type(outputs).__name__}, which holds no tensor of logits (images, classes)"
    )


def to_logits(outputs: Tensor, kind: Kind) -> Tensor:
    """Convert outputs (N, C) of a given kind to logits (N, classes), differentiably."""
    if kind == "probabilities":
        return outputs.clamp(min=SMALLEST_PROBABILITY).log()
    if kind in ("sigmoids", "one probability"):
        eps = torch.finfo(outputs.dtype).eps
        outputs = outputs.logit(eps=eps)
    if kind in ("one logit", "one probability"):
        # The softmax over these two logits gives class 1 the sigmoid of the number.
        return torch.cat([torch.zeros_like(outputs), outputs], 1)
    return outputs


def noise(channels: int, image_size: int) -> Tensor:
    """Random images with a fixed seed, (SAMPLES, channels, image_size, image_size) in [0, 1]."""
    generator = torch.Generator().manual_seed(0)
    return torch.rand(SAMPLES, channels, image_size, image_size, generator=generator)


def outputs_of(network: nn.Module, images: Tensor, width: int | None = None) -> Outputs:
    """Find the kind of a network's outputs. Its mode and statistics are not changed.

    Args:
        network: Takes the images.
        images: (N, C, H, W), N at least 2.
        width: Expected number of outputs per image, if known.

    Raises:
        InputError: If the outputs hold no tensor (N, C).
    """
    return _inspect(network, images, width)[0]


def read_logits(network: nn.Module, images: Tensor, width: int | None = None) -> Outputs:
    """Make a network return logits (N, classes), by forward hooks; its `state_dict` does not change. `plain` undoes it.

    Args:
        network: Takes the images.
        images: (N, C, H, W), N at least 2.
        width: Expected number of outputs per image, if known.

    Raises:
        InputError: If the outputs hold no tensor (N, C).
    """
    plain(network)
    outputs, ending = _inspect(network, images, width)
    kind = outputs.kind
    if ending is not None:
        ending.register_forward_hook(_SkipEnding())
        kind = "one logit" if kind == "one probability" else "logits"
    network.register_forward_hook(_ReadLogits(kind, outputs.width))
    return outputs


def plain(network: nn.Module) -> nn.Module:
    """Undo `read_logits`, and return the same network."""
    for module in network.modules():
        hooks = {} if isinstance(module, ScriptModule) else module._forward_hooks
        for number in [number for number, hook in hooks.items() if isinstance(hook, (_ReadLogits, _SkipEnding))]:
            del hooks[number]
    return network


def _inspect(network: nn.Module, images: Tensor, width: int | None) -> tuple[Outputs, nn.Module | None]:
    """The kind of a network's outputs, and its final Softmax or Sigmoid module, if that is called once."""
    results: list[tuple[nn.Module, Tensor]] = []

    def record(module: nn.Module, _inputs: Any, output: Any) -> None:
        results.append((module, output))

    parts = [part for part in network.modules() if type(part) in (nn.Softmax, nn.Sigmoid)]
    hooks = [part.register_forward_hook(record) for part in parts]
    try:
        with torch.no_grad(), in_eval_mode(network), _Sigmoids() as sigmoids:
            raw = network(images.to(next(network.parameters(), images)))
    finally:
        for hook in hooks:
            hook.remove()
    values, place = find_tensor(raw, width)
    if values.ndim != 2 or len(values) != len(images):
        raise InputError(
            "model.arch", None, f"outputs {tuple(values.shape)} for {len(images)} images, not (images, classes)"
        )
    kind = _kind(values.float(), any(_same(values, one) for one in sigmoids.results))
    endings = [module for module, result in results if _same(values, result)]
    called_once = len(endings) == 1 and sum(module is endings[0] for module, _ in results) == 1
    ending = endings[0] if called_once and kind in ("probabilities", "sigmoids", "one probability") else None
    return Outputs(kind, values.shape[1], place), ending


def _kind(values: Tensor, from_sigmoid: bool) -> Kind:
    """The kind of outputs (N, C)."""
    if values.shape[1] == 1:
        return "one probability" if from_sigmoid else "one logit"
    if from_sigmoid:
        return "sigmoids"
    if (values >= 0).all() and ((values.sum(1) - 1).abs() < TOLERANCE).all():
        return "probabilities"
    if (values <= TOLERANCE).all() and (values.logsumexp(1).abs() < TOLERANCE).all():
        return "log-probabilities"
    return "logits"


def _same(values: Tensor, other: Tensor) -> bool:
    """Whether two tensors share their memory, as before and after a `squeeze`."""
    return values.data_ptr() == other.data_ptr() and values.numel() == other.numel()
