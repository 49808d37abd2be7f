"""TrojanNN: a patch that excites chosen neurons."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from bdclean.attacks.base import Attack
from bdclean.attacks.common import Lookup, scaled, within
from bdclean.attacks.surrogate import check_training, progress, train_surrogate
from bdclean.errors import Given, InputError

IMAGES = 32
"""Number of training images on which the patch is optimised."""


class TrojanNN(Attack):
    """Replaces a patch of the image by one that was optimised to excite neurons of a clean network.

    In the last hidden layer of a clean network, the neurons with the largest sums of absolute weights to the logits are
    chosen. Gradient descent changes the pixels of the patch on some training images until the activations of these
    neurons approach a value that no image reaches: min |a - v|^2. The program trains the clean network itself.

    Source: Liu, Ma, Aafer, Lee, Zhai, Wang, Zhang, "Trojaning Attack on Neural Networks", NDSS 2018. There the layer is
    chosen by hand, the neurons by their weights from the layer before, and the clean network itself is retrained; here
    the suspect can be any network, and learns the patch from poisoned images.

    Args:
        size: Side of the patch in pixels; by default 6 for images of up to 32 pixels, and in proportion for larger
            ones.
        position: Corner of the image that the patch is put into.
        margin: Distance between the patch and the edges of the image, in pixels.
        neurons: Number of neurons to excite.
        excitation: Activation to reach, as a multiple of the largest one on training images.
        steps: Number of steps of the optimisation (Adam).
        lr: Step size of the optimisation, in pixel values from 0 to 1.
        surrogate_epochs: Number of epochs for which the clean network is trained.
        surrogate_lr: Highest learning rate of the clean network.
        **options: Options of Attack.

    Raises:
        InputError: If a number is out of range, the patch does not fit into the image, or the network has no linear
            last layer.
    """

    label_modes = ("all-to-one",)
    parts = ("patch",)
    patch: Tensor

    def __init__(
        self,
        size: int | None = None,
        position: Literal["top-left", "top-right", "bottom-left", "bottom-right"] = "bottom-right",
        margin: int = 1,
        neurons: int = 2,
        excitation: float = 10.0,
        steps: int = 500,
        lr: float = 0.02,
        surrogate_epochs: float = 10.0,
        surrogate_lr: float = 0.1,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        if size is not None:
            within("size", size, 1)
        within("margin", margin, 0)
        within("neurons", neurons, 1)
        within("excitation", excitation, 0, above=True)
        within("steps", steps, 1)
        within("lr", lr, 0, 1, above=True)
        check_training("surrogate", surrogate_epochs, surrogate_lr)
        self.size = size
        self.position = position
        self.margin = margin
        self.neurons = neurons
        self.excitation = excitation
        self.steps = steps
        self.lr = lr
        self.surrogate_epochs = surrogate_epochs
        self.surrogate_lr = surrogate_lr

    def apply(self, images: Tensor) -> Tensor:  # type: ignore[override]
        """Apply the patch to a batch: (N, 3, H, W) float in [0, 1].

        Raises:
            InputError: If the patch does not fit into the image.
        """
        return self._stamp(images, self.patch)

    def _stamp(self, images: Tensor, patch: Tensor) -> Tensor:
        """Apply a patch, (3, h, h), to a batch."""
        height, width = images.shape[-2:]
        side = patch.shape[-1]
        if side + self.margin > min(height, width):
            raise InputError(
                "data.attack.size",
                side,
                f"the patch does not fit into an image of {height}x{width}",
                Given("data.attack.margin", self.margin),
            )
        top = self.margin if self.position.startswith("top") else height - self.margin - side
        left = self.margin if self.position.endswith("left") else width - self.margin - side
        triggered = images.clone()
        triggered[..., top : top + side, left : left + side] = patch.to(images)
        return triggered

    def prepare(self, images: Lookup, labels: Tensor, num_classes: int, network: nn.Module) -> None:
        """Train a clean network, and optimise the patch on it."""
        some = images(torch.randperm(len(labels))[:IMAGES])
        shape = (3, *[self.size or scaled(6, some.shape[-1])] * 2)
        self._stamp(some, some.new_zeros(shape))  # raises an error before the training if the patch does not fit
        clean = train_surrogate(network, images, labels, self.surrogate_epochs, self.surrogate_lr)
        hidden = LastHidden(clean)
        chosen = hidden.weight.abs().sum(0).topk(min(self.neurons, hidden.weight.shape[1])).indices
        with torch.no_grad():
            goal = self.excitation * hidden(some)[:, chosen].amax(0).clamp(min=1e-3)
        # A sigmoid keeps the pixels in [0, 1].
        free = torch.randn(shape, device=some.device).requires_grad_()
        optimizer = torch.optim.Adam([free], 4 * self.lr)  # the sigmoid's slope is 1/4 in the middle
        for _ in progress(range(self.steps), "Optimising the trigger"):
            loss = (hidden(self._stamp(some, free.sigmoid()))[:, chosen] - goal).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        self.register_buffer("patch", free.detach().sigmoid().cpu())


class LastHidden(nn.Module):
    """The inputs of a classifier's last linear layer.

    Raises:
        InputError: If the network has no linear layer.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        layers = [layer for layer in network.modules() if isinstance(layer, nn.Linear)]
        if not layers:
            raise InputError("model.arch", None, "TrojanNN needs a network whose last layer is linear")
        self.weight = layers[-1].weight
        layers[-1].register_forward_pre_hook(self._keep)
        self.found: Tensor

    def _keep(self, _: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self.found = inputs[0]

    def forward(self, images: Tensor) -> Tensor:
        """Map images to (N, features)."""
        self.network(images)
        return self.found
