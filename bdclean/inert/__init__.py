"""Reads PyTorch files without running them: the standard library alone, no torch, no import of what a file names."""
