"""Logits, whatever a network outputs: probabilities, one number for two classes, a tuple, a dictionary."""

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
"""What the user is told about each kind of output."""
SMALLEST_PROBABILITY = 1e-38
"""Smaller ones count as this one: the logarithm of 0 is infinite, and subnormal numbers may be flushed to 0."""
TOLERANCE = 1e-3
"""By how much the sum of a row of probabilities may differ from 1."""
SAMPLES = 2
"""Noise images that a network is tried on."""


@dataclass(frozen=True)
class Outputs:
    """What a network outputs for a batch of images.

    Attributes:
        kind: What the numbers are.
        width: How many numbers there are for an image.
        place: Where in a tuple, a dictionary or an object they are, as Python would write it; empty for a tensor.
    """

    kind: Kind
    width: int
    place: str = ""

    @property
    def num_classes(self) -> int:
        """How many classes they stand for: two where there is one number."""
        return max(2, self.width)

    def describe(self) -> str:
        """What is unusual about the outputs, as one sentence without a full stop; empty for a tensor of logits."""
        taken = f"its outputs are read from output{self.place}" if self.place else ""
        return "; ".join(part for part in (taken, SENTENCES[self.kind]) if part)


class _Sigmoids(TorchFunctionMode):
    """Collects the results of sigmoid functions while it is active.

    Numbers between 0 and 1 do not show that they are probabilities: the logit of a network may be small, too.
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
    """A forward hook of a network that outputs something else: it returns logits (N, classes) instead."""

    def __init__(self, kind: Kind, width: int) -> None:
        self.kind, self.width = kind, width

    def __call__(self, _module: nn.Module, _inputs: Any, outputs: Any) -> Tensor:
        return to_logits(find_tensor(outputs, self.width)[0], self.kind)


class _SkipEnding:
    """A forward hook of a last Softmax or Sigmoid module: it returns numbers that saturate less.

    The logarithm of a softmax that has rounded to 0 has lost what log_softmax still knows.
    """

    def __call__(self, module: nn.Module, inputs: tuple[Tensor, ...], _outputs: Tensor) -> Tensor:
        return inputs[0] if isinstance(module, nn.Sigmoid) else inputs[0].log_softmax(1)


def find_tensor(outputs: Any, width: int | None = None) -> tuple[Tensor, str]:
    """The tensor of logits or probabilities, (N, C), in whatever a network returns, and where it is.

    Of several it is the one called `logits`, else the first of `width` columns, else the first of those with fewest:
    the others are features.

    Args:
        outputs: What the network returned.
        width: How many columns it should have, if that is known.

    Raises:
        InputError: If there is none.
    """
    if isinstance(outputs, Tensor):
        if not outputs.is_floating_point():
            raise InputError("model.arch", None, f"outputs {outputs.dtype}: numbers of classes, perhaps, and no logits")
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
    """Logits (N, classes) from outputs (N, C) of some kind, with a gradient."""
    if kind == "probabilities":
        return outputs.clamp(min=SMALLEST_PROBABILITY).log()
    if kind in ("sigmoids", "one probability"):
        eps = torch.finfo(outputs.dtype).eps
        outputs = outputs.logit(eps=eps)
    if kind in ("one logit", "one probability"):
        # As a softmax over these two, the probability of class 1 is the sigmoid of the number.
        return torch.cat([torch.zeros_like(outputs), outputs], 1)
    return outputs


def noise(channels: int, image_size: int) -> Tensor:
    """The same random images each time, (SAMPLES, channels, image_size, image_size) in [0, 1]."""
    generator = torch.Generator().manual_seed(0)
    return torch.rand(SAMPLES, channels, image_size, image_size, generator=generator)


def outputs_of(network: nn.Module, images: Tensor, width: int | None = None) -> Outputs:
    """Find out what a network outputs. Its mode and statistics stay.

    Args:
        network: Takes the images.
        images: (N, C, H, W), two or more.
        width: As in `find_tensor`.

    Raises:
        InputError: If the outputs hold no tensor (N, C).
    """
    return _watch(network, images, width)[0]


def read_logits(network: nn.Module, images: Tensor, width: int | None = None) -> Outputs:
    """Have a network return logits (N, classes) from now on; its `state_dict` stays. `plain` undoes it.

    Args:
        network: Takes the images.
        images: As in `outputs_of`.
        width: As in `find_tensor`.

    Raises:
        InputError: If the outputs hold no tensor (N, C).
    """
    plain(network)
    outputs, ending = _watch(network, images, width)
    kind = outputs.kind
    if ending is not None:
        ending.register_forward_hook(_SkipEnding())
        kind = "one logit" if kind == "one probability" else "logits"
    network.register_forward_hook(_ReadLogits(kind, outputs.width))
    return outputs


def plain(network: nn.Module) -> nn.Module:
    """The same network, returning what it returned before `read_logits`."""
    for module in network.modules():
        hooks = {} if isinstance(module, ScriptModule) else module._forward_hooks
        for number in [number for number, hook in hooks.items() if isinstance(hook, (_ReadLogits, _SkipEnding))]:
            del hooks[number]
    return network


def _watch(network: nn.Module, images: Tensor, width: int | None) -> tuple[Outputs, nn.Module | None]:
    """What a network outputs, and the Softmax or Sigmoid module that it ends in, if that acts once."""
    results: list[tuple[nn.Module, Tensor]] = []

    def note(module: nn.Module, _inputs: Any, output: Any) -> None:
        results.append((module, output))

    parts = [part for part in network.modules() if type(part) in (nn.Softmax, nn.Sigmoid)]
    hooks = [part.register_forward_hook(note) for part in parts]
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
    ending = [module for module, result in results if _same(values, result)]
    once = len(ending) == 1 and sum(module is ending[0] for module, _ in results) == 1
    skipped = ending[0] if once and kind in ("probabilities", "sigmoids", "one probability") else None
    return Outputs(kind, values.shape[1], place), skipped


def _kind(values: Tensor, from_sigmoid: bool) -> Kind:
    """What kind of numbers (N, C) are."""
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
    """Whether two tensors are the same numbers in memory, as those before and after a `squeeze`."""
    return values.data_ptr() == other.data_ptr() and values.numel() == other.numel()
