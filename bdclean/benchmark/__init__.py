"""Benchmark methods against attacks under one protocol."""

from bdclean.benchmark.run import benchmark

__all__ = ["benchmark"]
