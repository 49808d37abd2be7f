"""Names of parameters on the command line."""

from __future__ import annotations


def flag(parameter: str) -> str:
    """The flag of a parameter."""
    return f"--{parameter}"
