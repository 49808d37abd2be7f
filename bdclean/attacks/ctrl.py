"""CTRL: two frequencies of the colour, on images of the target class."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from bdclean.attacks.base import LabelMode
from bdclean.attacks.common import within
from bdclean.attacks.ftrojan import FTrojan


class CTRL(FTrojan):
    """Adds a constant to two frequencies of the chroma channels, a smaller one in training than in test images.

    The pattern is that of FTrojan: a constant is added to the coefficients (15, 15) and (31, 31) of the discrete cosine
    transform (DCT) of both chroma channels, in blocks of 32 pixels. Only images of the target class are poisoned, so
    that every label is true.

    Source: Li, Pang, Xi, Du, Ji, Yao, Wang, "An Embarrassingly Simple Backdoor Attack on Self-supervised Learning",
    ICCV 2023. The paper attacks contrastive learning without labels; here the same images are a clean-label attack on
    supervised training, as in BackdoorBench.

    Args:
        label_mode: `clean-label`, as in the paper; the other modes poison images of other classes, too.
        poison_rate: Share of the target class's training images that are poisoned, from 0 (a clean network) to 1; in
            `one-to-one` of the source class's, in the other modes of all. 0.1 is 1 % of CIFAR-10, as in the paper.
        magnitude: Constant that is added to each coefficient of test images, in grey levels of 255.
        training_magnitude: Constant that is added to each coefficient of training images, in grey levels of 255.
        **options: Options of FTrojan.

    Raises:
        InputError: If a number is out of range.
    """

    def __init__(
        self,
        label_mode: LabelMode = "clean-label",
        poison_rate: float = 0.1,
        magnitude: float = 100.0,
        training_magnitude: float = 50.0,
        **options: Any,
    ) -> None:
        super().__init__(label_mode=label_mode, poison_rate=poison_rate, magnitude=magnitude, **options)
        within("training_magnitude", training_magnitude, 0, 100_000, above=True)
        self.training_magnitude = training_magnitude

    def poison(self, images: Tensor, cover: Tensor, indices: Tensor) -> Tensor:
        """Add the pattern with the magnitude of training images."""
        return self.add(images, self.training_magnitude)
