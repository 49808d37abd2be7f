"""TaCT: a patch that works on images of one class alone."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from bdclean.attacks.badnets import BadNets
from bdclean.attacks.base import LabelMode
from bdclean.attacks.common import within


class TaCT(BadNets):
    """Puts a patch on images of a source class, with the target class, and on images of other classes as cover.

    Cover images carry the same patch with their true labels, so that the network has to learn source class and patch
    together: triggered images of other classes keep their class, and their features stay with their own class. ASR is
    measured on the test images of the source class. `bdclean test --data.attack BadNets` with the same options of the
    patch measures the share of the images of all other classes that the patch flips to the target class.

    Source: Tang, Wang, Tang, Zhang, "Demon in the Variant: Statistical Analysis of DNNs for Robust Backdoor
    Contamination Detection", USENIX Security 2021. There the rates are shares of the whole training set, and cover
    images come from chosen classes; here they come from all classes but source and target.

    Args:
        source_class: Class whose triggered images should be predicted as the target class.
        label_mode: Only `one-to-one`.
        poison_rate: Share of the source class's training images that are poisoned, from 0 (a clean network) to 1.
        cover_ratio: Number of cover images for each poisoned image.
        **options: Options of BadNets.

    Raises:
        InputError: If a number is out of range.
    """

    label_modes = ("one-to-one",)
    cover_option = "cover_ratio"

    def __init__(
        self,
        source_class: int = 1,
        label_mode: LabelMode = "one-to-one",
        poison_rate: float = 0.5,
        cover_ratio: float = 1.0,
        **options: Any,
    ) -> None:
        super().__init__(source_class=source_class, label_mode=label_mode, poison_rate=poison_rate, **options)
        within("cover_ratio", cover_ratio, 0)
        self.cover_ratio = cover_ratio

    def coverable(self, labels: Tensor) -> Tensor:
        """Images of all classes but source and target, (N,) bool."""
        return (labels != self.source_class) & (labels != self.target_class)
