"""Triggers that a student unlearns: searched for again and again, and put on its images."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from bdclean.cleansing.scandistill.aims import Aim, Changes
from bdclean.scanning import Network
from bdclean.training import batch_size, pieces

SEARCHED = 1024
"""Images that searches draw from."""
LOOKED_AT = 640
"""Images that one search looks at."""
JUDGED = 64
"""Images by which the share of a batch that carries a trigger is set."""
BETWEEN = 2_250
"""Images that are trained on between one search and the next."""

Predict = Callable[[Iterable[Tensor]], Tensor]
"""From images in parts (n, C, H, W) to their predicted classes (N,)."""


class Triggers:
    """Universal changes that a student unlearns.

    Args:
        aims: The triggers to search for, one or more.
        suspect: From images in [0, 1] to logits, with a gradient for the images.
        student: The same; it changes between searches, and is in eval mode during one.
        predict: The student's predictions, in the precision of its training.
        images: (N, C, H, W) in [0, 1], to search on.
        own: (N,) the suspect's predictions.
        share: The share of each batch that carries a change: if the student's own changes flip no image, and if they
            flip all.
    """

    def __init__(
        self,
        aims: Sequence[Aim],
        suspect: Network,
        student: Network,
        predict: Predict,
        images: Tensor,
        own: Tensor,
        share: tuple[float, float],
    ) -> None:
        self.aims = aims
        self.suspect, self.student = suspect, student
        self.predict = predict
        self.images, self.own = images, own
        self.share = share
        self.in_student: list[Changes] = []
        """For each aim, what the last search found in the student."""
        self.in_suspect: list[Changes] = []
        """For each aim, what the last search found in the suspect, plainer changes included."""
        self.searched: list[list[Changes]] = []
        self.plain: list[Changes] = []
        self.danger = 1.0
        """The share of the images that the student's own changes flip."""
        self.searches = 0
        self.seen = 0.0

    @property
    def changes(self) -> list[Changes]:
        """What is put on images: each of these equally often."""
        return [*self.in_student, *self.in_suspect]

    def due(self, images: float) -> bool:
        """Whether it is time for a search, before so many images more are trained on."""
        now = self.seen >= self.searches * BETWEEN
        self.seen += images
        self.searches += now
        return now

    def search(self) -> None:
        """Search the student, as it is, and the suspect."""
        order = torch.randperm(min(SEARCHED, len(self.images)))[:LOOKED_AT].to(self.images.device)
        images, own = self.images[order], self.own[order]
        found = [[aim.search(network, images, own) for aim in self.aims] for network in (self.student, self.suspect)]
        if self.searched:
            found = [
                [now.after(before) for now, before in zip(*parts, strict=True)]
                for parts in zip(found, self.searched, strict=True)
            ]
        self.searched = found
        self.in_student, suspect = found
        known: Sequence[Changes | None] = self.plain or [None] * len(suspect)
        self.plain = [
            aim.simplify(self.suspect, images, own, one, plain)
            for aim, one, plain in zip(self.aims, suspect, known, strict=True)
        ]
        # All together as often as those of all sizes, or more.
        self.in_suspect = [
            one.with_(plain, math.ceil(len(aim.hunter.sizes) / max(1, len(plain.parameters))))
            for aim, one, plain in zip(self.aims, suspect, self.plain, strict=True)
        ]
        danger = self.flipped(self.in_student, images[:JUDGED], own[:JUDGED])
        self.danger = 1.0 if math.isnan(danger) else danger

    def effect(self) -> float:
        """The share of images that what was found in the suspect still flips in the student; NaN if no image counts."""
        return self.flipped(self.in_suspect, self.images[: 8 * JUDGED], self.own[: 8 * JUDGED])

    @torch.no_grad()
    def flipped(self, changes: Sequence[Changes], images: Tensor, own: Tensor) -> float:
        """The share of images (N, C, H, W) that changes flip in the student, each as its aim counts; the mean.

        NaN if no image counts.
        """
        parts = pieces(images, batch_size(images))
        shares = []
        for found, aim in zip(changes, self.aims, strict=True):
            # A plainer one is there several times.
            distinct, places = torch.unique(found.parameters, dim=0, return_inverse=True)
            predicted = [self.predict(found.change(part, one) for part in parts) for one in distinct[:, None]]
            shares.append(aim.moved(torch.stack(predicted)[places], own, found.sources))
        return float(torch.cat(shares).nanmean())

    def put_on(self, images: Tensor, own: Tensor) -> Tensor:
        """A batch (N, C, H, W) of predicted classes (N,), of which a share carries a change, a random one each."""
        least, most = self.share
        number = round((least + (most - least) * self.danger) * len(images))
        places = torch.arange(number, device=images.device)
        if sources := [found.sources for found in self.changes if found.sources is not None]:
            # Few images are of a class that changes are for: these first, without waiting to know how many they are.
            fits = torch.isin(own, torch.cat(sources)).int()
            places = fits.argsort(descending=True, stable=True)[: round(most * len(images))]
        changed = images.clone()
        # In another order each time: small batches have room for a few of them.
        order = torch.randperm(len(self.changes)).tolist()
        for some, kind in zip(places.tensor_split(len(order)), order, strict=True):
            if len(some):
                changed[some] = self.changes[kind].put_on(images[some], own[some]).to(changed.dtype)
        return changed
