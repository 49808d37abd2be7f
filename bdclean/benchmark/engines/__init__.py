"""Engines of benchmarks, one file each. Import a new engine here and add it to `__all__`."""

from bdclean.benchmark.engines.base import Engine
from bdclean.benchmark.engines.local import Local
from bdclean.benchmark.engines.ray import Ray
from bdclean.benchmark.engines.slurm import Slurm

__all__ = ["Engine", "Local", "Ray", "Slurm"]
