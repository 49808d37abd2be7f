"""Reading the source code of modules without importing them: importing torch takes seconds."""

from __future__ import annotations

import ast
import importlib.util
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).parent


@cache
def module_tree(path: Path) -> ast.Module:
    """The syntax tree of a module."""
    return ast.parse(path.read_text(encoding="utf-8"))


def files_of(package: str, pattern: str) -> list[Path]:
    """Files of an installed top-level package; empty if it is not installed.

    Args:
        package: Its name. A name with a dot would import the package.
        pattern: Path of the files inside the package, with wildcards.
    """
    found = importlib.util.find_spec(package)
    places = () if found is None else found.submodule_search_locations or ()
    return sorted(path for place in places for path in Path(place).glob(pattern) if path.is_file())


def keys_of(path: Path, name: str) -> tuple[str, ...]:
    """The strings in a variable of a module: the keys of a dictionary, or the entries of a list."""
    for node in module_tree(path).body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if any(isinstance(one, ast.Name) and one.id == name for one in targets):
            value = getattr(node, "value", None)
            keys = value.keys if isinstance(value, ast.Dict) else getattr(value, "elts", [])
            return tuple(str(key.value) for key in keys if isinstance(key, ast.Constant))
    return ()
