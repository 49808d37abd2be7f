"""Trigger inversion: how small a change, the same for all images, takes them to each class."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Generator, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from bdclean import InputError
from bdclean.scanning.base import Detector, Network
from bdclean.scanning.goals import Goal, Towards
from bdclean.training import batch_size, pieces
from bdclean.universal import (
    CONTROLS,
    add,
    ascend,
    ball,
    boxes,
    few_pixels,
    lay,
    overlay,
    paste,
    radius,
    shift_radius,
    warp,
)

JUDGED = 128
"""Images by which a change is judged."""
BEHIND = 0.125
"""One class in eight may stay behind: with few images of each, some always do."""
PATCH, PATCH_STEPS, PLACES = 7.0, 12, 5
"""Side of the patch that a search for few pixels begins with, in pixels of 32; gradient steps to it; along each side of
the image, places where it is tried."""
SIDES, AROUND, GLANCED, LIKELY, LARGER = (2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0), 2, 4, 16, 0.01
"""Sides of the squares of one colour that are tried in the place of a mask, in pixels of 32; how many places to each
side of it; by how many images; how many of them by all; which share of the images a pixel of its side has to add."""


class Inversion(Detector):
    """For each class, a change that takes images of all others there, the same for all: a trigger, found again.

    No labels: it is the network's own answers that are changed. The search begins with large changes and shrinks them;
    at each size it is measured which share of the images goes over, for each class that they come from: a trigger works
    on all classes, what takes a circle to an ellipse does not. The score of a class is the share that is reached from
    (almost) any other class, a mean over all sizes: the smaller a change may be that still does it, the larger. Clean
    networks have a class that takes over first, too; what it needs is the least that counts. A class that cannot come
    as far any more is let go, and has 0 for the sizes that are left.

    Searching for a trigger class by class: Wang, Yao, Shan, Li, Viswanath, Zheng, Zhao, "Neural Cleanse: Identifying
    and Mitigating Backdoor Attacks in Neural Networks", IEEE S&P 2019. Shrinking bounds and the score are our own.

    Args:
        sizes: From large to small, for images of 32 pixels.
        steps: Gradient steps at each size.
        batch_size: Images a step, for each class.

    Raises:
        InputError: If an option is out of range.
    """

    noise = 0.035

    def __init__(self, sizes: Sequence[float], steps: int, batch_size: int) -> None:
        if not sizes:
            raise InputError("--detector.sizes []: must be at least one")
        for size in sizes:
            self.within("sizes", size, 0)
        self.within("steps", steps, 1)
        self.within("batch_size", batch_size, 1)
        self.sizes = sizes
        self.steps = steps
        self.batch_size = batch_size

    @abstractmethod
    def start(self, goal: Goal) -> Tensor:
        """Parameters of changes to begin with, (P, ...)."""

    @abstractmethod
    def change(self, images: Tensor, parameters: Tensor) -> Tensor:
        """As `bdclean.universal.Change`."""

    def project(self, parameters: Tensor, size: float) -> Tensor:
        """As `bdclean.universal.Project`."""
        return ball(parameters, size)

    def bound(self, size: float, side: int) -> float:
        """What a size for images of 32 pixels is in parameters, for images of so many."""
        return radius(size, side)

    def score(
        self, network: Network, images: Tensor, num_classes: int
    ) -> tuple[Tensor, Callable[[Tensor], Tensor] | None]:
        with torch.no_grad():
            own = torch.cat([network(part).argmax(1) for part in pieces(images, batch_size(images))])
        classes = torch.arange(num_classes, device=images.device)
        together = max(1, batch_size(images) // self.batch_size)
        found = [self.search(network, images, own, part) for part in pieces(classes, together)]
        shares, parameters = (torch.cat(parts) for parts in zip(*found, strict=True))
        best = shares.argmax()
        # From one process to others it goes by way of the CPU.
        return shares, partial(self._put_on, parameters[best : best + 1].cpu())

    def _put_on(self, parameters: Tensor, images: Tensor) -> Tensor:
        return self.change(images, parameters.to(images.device)).clamp(0, 1)

    def search(self, network: Network, images: Tensor, own: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
        """Changes towards some classes, judged. Arguments as in `Towards`.

        Returns:
            (P,) the score of each; (P, ...) parameters of the smallest change that takes half of the images there, or
            where there is none of the largest.
        """
        judged = images[:JUDGED]
        sources = F.one_hot(own[:JUDGED]).float()
        # Its own images, and classes without an image, say nothing.
        silent = (sources.sum(0) == 0) | (torch.arange(sources.shape[1], device=images.device) == classes[:, None])
        shares = torch.zeros(len(self.sizes), len(classes), device=images.device)
        going = torch.arange(len(classes), device=images.device)
        goal = Towards(network, images, own, classes, self.batch_size)
        smaller = self.shrink(goal)
        found = best = next(smaller)
        for number in range(len(self.sizes)):
            with torch.no_grad():
                gone = goal.logits(self.change, judged, found).argmax(2)
            reached = (gone == classes[going, None]).float() @ sources / sources.sum(0)
            reached = reached.masked_fill(silent[going], torch.nan)
            half = (reached.nanmean(1) >= 0.5).view(-1, *[1] * (found.ndim - 1))
            best = best.index_copy(0, going, torch.where(half, found, best[going]))
            shares[number, going] = reached.nanquantile(BEHIND, 1).nan_to_num(0)
            # A smaller change does no more than this: who cannot come as far as is common need not go on. But the first
            # has only begun to be what it can be.
            left = len(self.sizes) - 1 - number
            stays = (shares.sum(0) + left * shares[number])[going] >= self.least * len(self.sizes)
            stays |= number == 0
            if not left or not stays.any():
                break
            going = going[stays]
            found = smaller.send(stays)
        return shares.mean(0), best

    def shrink(self, goal: Goal) -> Generator[Tensor, Tensor | None, None]:
        """Changes towards a goal, (P, ...), of each size, from large to small.

        It can be sent which of them go on to the next size, (P,) of bool.
        """
        side = goal.images.shape[-1]
        found = self.start(goal)
        goal.restart()
        for size in self.sizes:
            bound = self.bound(size, side)
            gain = partial(goal.gain, self.change)
            found = ascend(gain, self.project(found, bound), bound, self.steps, self.project)
            going = yield found
            if going is not None:
                found = found[going]
                goal.narrow(going)

    def simplify(self, goal: Goal, parameters: Tensor) -> Tensor:
        """Something plainer than a change that was found, (1, ...), and does what it does; (0, ...) if there is none.

        Args:
            goal: What the change was found for, and nothing else.
            parameters: (1, ...) of the change.
        """
        return parameters[:0]


class DenseInversion(Inversion):
    """Trigger inversion with a perturbation that is added to all pixels, of bounded Euclidean norm.

    As in `Inversion`.

    Args:
        sizes: Norms, in pixel values.
        steps: As in Inversion.
        batch_size: As in Inversion.
    """

    least = 0.45

    def __init__(
        self,
        sizes: Sequence[float] = (2.8, 2.0, 1.4, 1.0, 0.7, 0.5, 0.35, 0.25, 0.18),
        steps: int = 4,
        batch_size: int = 16,
    ) -> None:
        super().__init__(sizes, steps, batch_size)

    def start(self, goal: Goal) -> Tensor:
        return goal.images.new_zeros(len(goal), *goal.images.shape[1:])

    def change(self, images: Tensor, parameters: Tensor) -> Tensor:
        return add(images, parameters)


class SparseInversion(Inversion):
    """Trigger inversion with a mask over a few pixels, and what takes their place.

    As in `Inversion`.

    Args:
        sizes: The mask sums up to at most the pixels of a square with this side.
        steps: As in Inversion.
        batch_size: As in Inversion.
    """

    least = 0.5

    def __init__(
        self, sizes: Sequence[float] = (11.3, 8.0, 5.6, 4.0, 2.8, 2.0, 1.4), steps: int = 4, batch_size: int = 16
    ) -> None:
        super().__init__(sizes, steps, batch_size)

    def start(self, goal: Goal) -> Tensor:
        # Half of a grey picture over all of the image.
        grey = goal.images.new_tensor([0.5, *[0.25] * goal.images.shape[1]]).view(1, -1, 1, 1)
        return grey.repeat(len(goal), 1, *goal.images.shape[-2:])

    def change(self, images: Tensor, parameters: Tensor) -> Tensor:
        return overlay(images, parameters)

    def project(self, parameters: Tensor, size: float) -> Tensor:
        return few_pixels(parameters, size)

    def simplify(self, goal: Goal, parameters: Tensor) -> Tensor:
        """A square of one colour about where the mask is, if it works on half of the images, and no fewer than that.

        Gradients end in patterns that work as well as such a square, and are none: who unlearns them may keep that.
        """
        if not goal.likely(overlay, parameters, GLANCED).numel():
            return parameters[:0]
        size = goal.images.shape[-2:]
        corners, sides, colours = squares(parameters[0, 0], goal.images.shape[1])

        def layers(chosen: Tensor) -> Tensor:
            return boxes(corners[chosen], sides[chosen], colours[chosen], size)

        def taken(tried: Tensor) -> Tensor:
            return (goal.likely(overlay, tried, JUDGED) > 0.5).float().mean(1)

        # Of two that do as much, the smaller one.
        cost = LARGER * sides / radius(1, size[-1])
        parts = pieces(torch.arange(len(sides), device=sides.device), max(1, batch_size(goal.images) // GLANCED))
        first = torch.cat([goal.likely(overlay, layers(part), GLANCED).mean(1) for part in parts])
        first = (first - cost).topk(LIKELY).indices
        shares = torch.cat([taken(layers(one)) for one in first[:, None]])
        best = (shares - cost[first]).argmax(0, keepdim=True)
        return layers(first[best[shares[best] >= taken(parameters).clamp(min=0.5)]])


def squares(mask: Tensor, channels: int) -> tuple[Tensor, Tensor, Tensor]:
    """Squares about the middle of a mask (H, W), as `boxes` takes them: corners (P, 2), sides (P,), colours (P, C)."""
    unit = radius(1, mask.shape[-1])
    along = torch.arange(float(mask.shape[-1]), device=mask.device)
    middle = torch.stack([mask.sum(1), mask.sum(0)]) @ along / mask.sum()
    shifts = torch.arange(-AROUND, AROUND + 1.0, device=mask.device)
    either = torch.tensor([0.0, 1.0], device=mask.device)
    every = torch.cartesian_prod(shifts, shifts, torch.tensor(SIDES, device=mask.device), *[either] * channels)
    sides = (unit * every[:, 2]).round()
    corners = (middle + 0.5 - sides[:, None] / 2).round() + (unit * every[:, :2]).round()
    return corners, sides, every[:, 3:]


class PatchInversion(SparseInversion):
    """Trigger inversion with a patch, of which fewer and fewer pixels are left.

    The patch is made at a random place of each image, so that what it shows is found before where it has to be, and put
    where it does most: what works in many places is found so, and from a mask over all of the image seldom.

    As in `SparseInversion`. Patches for random places: Brown, Mané, Roy, Abadi, Gilmer, "Adversarial Patch", 2017.

    Args:
        sizes: As in SparseInversion.
        steps: As in Inversion.
        batch_size: As in Inversion.
    """

    least = 0.45

    def __init__(self, sizes: Sequence[float] = (5.6, 4.0, 2.8, 2.0), steps: int = 4, batch_size: int = 16) -> None:
        super().__init__(sizes, steps, batch_size)

    def start(self, goal: Goal) -> Tensor:
        side, channels = goal.images.shape[-1], goal.images.shape[1]
        pixels = min(side, max(1, round(radius(PATCH, side))))
        grey = goal.images.new_full((len(goal), channels, pixels, pixels), 0.5)
        gain = partial(goal.gain, paste)
        patches = ascend(gain, grey, pixels, PATCH_STEPS, lambda colours, _: colours.clamp(0, 1))
        places = torch.linspace(0, side - pixels, PLACES, device=goal.images.device).round().long()

        def layers(corners: Tensor) -> Tensor:
            return lay(patches, corners.expand(len(goal), 2), goal.images.shape[-2:])

        corners = torch.cartesian_prod(places, places)
        with torch.no_grad():
            best = torch.stack([goal.glimpse(overlay, layers(corner)) for corner in corners]).argmax(0)
        return layers(corners[best])


class WarpInversion(Inversion):
    """Trigger inversion with a smooth warp.

    As in `Inversion`.

    Args:
        sizes: How far it shifts, root mean square, in pixels.
        steps: As in Inversion.
        batch_size: As in Inversion.
    """

    least = 0.3

    def __init__(
        self, sizes: Sequence[float] = (2.0, 1.5, 1.0, 0.7, 0.5, 0.35), steps: int = 4, batch_size: int = 16
    ) -> None:
        super().__init__(sizes, steps, batch_size)

    def start(self, goal: Goal) -> Tensor:
        # Without a warp, the same gradient shifts each control point.
        return 0.01 * torch.randn(len(goal), 2, CONTROLS, CONTROLS).to(goal.images)

    def change(self, images: Tensor, parameters: Tensor) -> Tensor:
        return warp(images, parameters)

    def bound(self, size: float, side: int) -> float:
        # Shifts are in shares of the side.
        return shift_radius(size)
