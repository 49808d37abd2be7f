"""Benchmark methods against attacks under one protocol."""
