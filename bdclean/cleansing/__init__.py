"""Cleansing methods, one file each. Import a new method here and add it to `__all__`: all commands then offer it."""

from bdclean.cleansing.anp import ANP
from bdclean.cleansing.ban import BAN
from bdclean.cleansing.base import Cleanser
from bdclean.cleansing.bnp import BNP
from bdclean.cleansing.btidbf import BTIDBF
from bdclean.cleansing.clp import CLP
from bdclean.cleansing.controls import Distill, Reinitialise
from bdclean.cleansing.distill import DistillCleanseModule, StrongDistillCleanseModule
from bdclean.cleansing.ep import EP
from bdclean.cleansing.fineprune import FinePrune
from bdclean.cleansing.finetune import FineTune
from bdclean.cleansing.fst import FST
from bdclean.cleansing.ftsam import FTSAM
from bdclean.cleansing.ibau import IBAU
from bdclean.cleansing.mcr import MCR
from bdclean.cleansing.nad import NAD
from bdclean.cleansing.nc import NC
from bdclean.cleansing.npd import NPD
from bdclean.cleansing.rnp import RNP
from bdclean.cleansing.sau import SAU
from bdclean.cleansing.scandistill import ScanDistill
from bdclean.cleansing.tsbd import TSBD
from bdclean.cleansing.unit import UNIT

__all__ = [
    "ANP",
    "BAN",
    "BNP",
    "BTIDBF",
    "CLP",
    "EP",
    "FST",
    "FTSAM",
    "IBAU",
    "MCR",
    "NAD",
    "NC",
    "NPD",
    "RNP",
    "SAU",
    "TSBD",
    "UNIT",
    "Cleanser",
    "Distill",
    "DistillCleanseModule",
    "FinePrune",
    "FineTune",
    "Reinitialise",
    "ScanDistill",
    "StrongDistillCleanseModule",
]
