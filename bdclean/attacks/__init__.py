"""Backdoor attacks, one file each: a new one is imported here and named in `__all__`, and is everywhere at once."""

from bdclean.attacks.adaptive_blend import AdaptiveBlend
from bdclean.attacks.adaptive_patch import AdaptivePatch
from bdclean.attacks.adba import ADBA
from bdclean.attacks.badnets import BadNets
from bdclean.attacks.base import Attack
from bdclean.attacks.blended import Blended
from bdclean.attacks.bpp import BppAttack
from bdclean.attacks.ftrojan import FTrojan
from bdclean.attacks.input_aware import InputAware
from bdclean.attacks.label_consistent import LabelConsistent
from bdclean.attacks.lira import LIRA
from bdclean.attacks.scar import SCAR
from bdclean.attacks.sig import SIG
from bdclean.attacks.ssba import SSBA
from bdclean.attacks.trojannn import TrojanNN
from bdclean.attacks.wanet import WaNet

__all__ = [
    "ADBA",
    "LIRA",
    "SCAR",
    "SIG",
    "SSBA",
    "AdaptiveBlend",
    "AdaptivePatch",
    "Attack",
    "BadNets",
    "Blended",
    "BppAttack",
    "FTrojan",
    "InputAware",
    "LabelConsistent",
    "TrojanNN",
    "WaNet",
]
