"""Triggers that a student unlearns: searching for them repeatedly, and applying them to its images."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from bdclean.cleansing.scandistill.aims import Aim, Changes
from bdclean.scanning import Network
from bdclean.training import batch_size, pieces

SEARCH_POOL = 1024
"""Maximum number of images that a search draws from."""
IMAGES_PER_SEARCH = 640
"""Maximum number of images in one search."""
JUDGED_IMAGES = 64
"""Images on which the ASR of the student's triggers is measured."""
SEARCH_INTERVAL = 2_250
"""Images trained on between one search and the next."""

Predict = Callable[[Iterable[Tensor]], Tensor]
"""Maps images in parts (n, C, H, W) to predictions (N,)."""


class Triggers:
    """Universal perturbations that a student unlearns.

    Args:
        aims: The triggers to search for, one or more.
        suspect: Maps images in [0, 1] to the suspect's logits, with a gradient for the images.
        student: Maps them to the student's logits; the student is in eval mode during a search.
        predict: The student's predictions, in the precision of its training.
        images: (N, C, H, W) in [0, 1], to search on.
        pseudo_labels: (N,) the suspect's predictions.
        share: Fraction of each batch that carries a perturbation: if those found in the student flip no image, and if
            they flip all.
    """

    def __init__(
        self,
        aims: Sequence[Aim],
        suspect: Network,
        student: Network,
        predict: Predict,
        images: Tensor,
        pseudo_labels: Tensor,
        share: tuple[float, float],
    ) -> None:
        self.aims = aims
        self.suspect, self.student = suspect, student
        self.predict = predict
        self.images, self.pseudo_labels = images, pseudo_labels
        self.share = share
        self.in_student: list[Changes] = []
        """For each aim, the perturbations that the last search found in the student."""
        self.in_suspect: list[Changes] = []
        """For each aim, the perturbations that the last search found in the suspect, and simpler ones."""
        self.searched: list[list[Changes]] = []
        self.plain: list[Changes] = []
        self.student_asr = 1.0
        """ASR of the perturbations found in the student, as a share."""
        self.searches = 0
        self.seen = 0.0

    @property
    def changes(self) -> list[Changes]:
        """Perturbations to apply to images, each kind equally often."""
        return [*self.in_student, *self.in_suspect]

    def due(self, images: float) -> bool:
        """Whether a search is due before the next batch; images is the mean size of a batch."""
        now = self.seen >= self.searches * SEARCH_INTERVAL
        self.seen += images
        self.searches += now
        return now

    def search(self) -> None:
        """Search the student in its present state, and the suspect."""
        order = torch.randperm(min(SEARCH_POOL, len(self.images)))[:IMAGES_PER_SEARCH].to(self.images.device)
        images, pseudo_labels = self.images[order], self.pseudo_labels[order]
        found = [
            [aim.search(network, images, pseudo_labels) for aim in self.aims]
            for network in (self.student, self.suspect)
        ]
        if self.searched:
            found = [
                [now.after(before) for now, before in zip(*parts, strict=True)]
                for parts in zip(found, self.searched, strict=True)
            ]
        self.searched = found
        self.in_student, suspect = found
        known: Sequence[Changes | None] = self.plain or [None] * len(suspect)
        self.plain = [
            aim.simplify(self.suspect, images, pseudo_labels, one, plain)
            for aim, one, plain in zip(self.aims, suspect, known, strict=True)
        ]
        # Simpler perturbations are repeated, to be drawn at least as often as all others.
        self.in_suspect = [
            one.with_(plain, math.ceil(len(aim.inversion.sizes) / max(1, len(plain.parameters))))
            for aim, one, plain in zip(self.aims, suspect, self.plain, strict=True)
        ]
        student_asr = self.flipped(self.in_student, images[:JUDGED_IMAGES], pseudo_labels[:JUDGED_IMAGES])
        self.student_asr = 1.0 if math.isnan(student_asr) else student_asr

    def effect(self) -> float:
        """ASR in the student of the triggers found in the suspect, as a share; NaN if no image counts."""
        return self.flipped(self.in_suspect, self.images[: 8 * JUDGED_IMAGES], self.pseudo_labels[: 8 * JUDGED_IMAGES])

    @torch.no_grad()
    def flipped(self, changes: Sequence[Changes], images: Tensor, pseudo_labels: Tensor) -> float:
        """Mean ASR of perturbations in the student, on images (N, C, H, W), as a share; NaN if no image counts."""
        parts = pieces(images, batch_size(images))
        shares = []
        for found, aim in zip(changes, self.aims, strict=True):
            # Simpler perturbations are repeated.
            distinct, places = torch.unique(found.parameters, dim=0, return_inverse=True)
            predicted = [self.predict(found.change(part, one) for part in parts) for one in distinct[:, None]]
            shares.append(aim.moved(torch.stack(predicted)[places], pseudo_labels, found.sources))
        return float(torch.cat(shares).nanmean())

    def perturb(self, images: Tensor, pseudo_labels: Tensor) -> Tensor:
        """A copy of a batch (N, C, H, W) where a share of the images carries a trigger, given pseudo-labels (N,)."""
        least, most = self.share
        number = round((least + (most - least) * self.student_asr) * len(images))
        places = torch.arange(number, device=images.device)
        if sources := [found.sources for found in self.changes if found.sources is not None]:
            # Images of the source classes come first; their number stays on the device.
            fits = torch.isin(pseudo_labels, torch.cat(sources)).int()
            places = fits.argsort(descending=True, stable=True)[: round(most * len(images))]
        changed = images.clone()
        # In random order, because a small batch has room for a few kinds only.
        order = torch.randperm(len(self.changes)).tolist()
        for some, kind in zip(places.tensor_split(len(order)), order, strict=True):
            if len(some):
                changed[some] = self.changes[kind].perturb(images[some], pseudo_labels[some]).to(changed.dtype)
        return changed
