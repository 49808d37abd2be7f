"""Trigger inversion: the smallest universal perturbation that flips images to each class."""

from bdclean.scanning.inversion.dense import DenseInversion
from bdclean.scanning.inversion.patch import PatchInversion
from bdclean.scanning.inversion.search import Inversion
from bdclean.scanning.inversion.sparse import SparseInversion
from bdclean.scanning.inversion.warp import WarpInversion

__all__ = ["DenseInversion", "Inversion", "PatchInversion", "SparseInversion", "WarpInversion"]
