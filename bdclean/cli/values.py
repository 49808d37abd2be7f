"""Values that an option accepts, from annotations in the source, without importing anything."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bdclean.source import PACKAGE, module_tree

TYPES = {"int": "int", "float": "float", "bool": "bool", "None": "NoneType", "tuple": "pair", "dict": "dict"}
TYPES |= dict.fromkeys(("list", "Sequence", "Iterable"), "list") | {"Mapping": "dict"}
"""Names of types in messages, by their names in annotations."""
DOUBTFUL = ("null", "none", "true", "false", "yes", "no", "on", "off", "nan", "inf", "infinity")
"""Words that YAML may not read as text."""


@dataclass(frozen=True)
class Values:
    """The values of an option.

    Attributes:
        choices: Accepted words.
        types: Accepted types, without text.
    """

    choices: tuple[str, ...]
    types: tuple[str, ...]

    def refuses(self, value: str) -> bool:
        """Whether a value is certainly not accepted: a word that is not one of the choices."""
        word = re.fullmatch(r"[A-Za-z_][\w.-]*", value) is not None
        return word and value not in self.choices and value.lower() not in DOUBTFUL


def is_word(value: str) -> bool:
    """Whether YAML reads a value as the same text."""
    return not re.search(r"^[\s\"'\[{&*!|>%@`]|[:#]|\n", value) and value.lower() not in DOUBTFUL and value != "~"


def values_of(annotation: ast.expr | None, path: Path) -> Values | None:
    """The values that an annotation accepts; None if any text may be a value.

    Args:
        annotation: Annotation of an argument.
        path: File of the annotation.
    """
    found = list(_parts(annotation, path))
    if None in found:
        return None
    parts = [part for part in found if part is not None]
    choices = tuple(part.value for part in parts if isinstance(part, ast.Constant))
    return Values(tuple(map(str, choices)), tuple(part for part in parts if isinstance(part, str)))


def _parts(node: ast.expr | None, path: Path) -> Iterator[ast.Constant | str | None]:
    """Yield the constants and the names of types that an annotation accepts, and None for anything unknown."""
    match node:
        case ast.Constant(value=None):
            yield TYPES["None"]
        case ast.BinOp(left=left, right=right):
            yield from _parts(left, path)
            yield from _parts(right, path)
        case ast.Subscript(value=ast.Name(id="Literal"), slice=inner):
            for one in inner.elts if isinstance(inner, ast.Tuple) else [inner]:
                yield one if isinstance(one, ast.Constant) else None
        case ast.Subscript(value=ast.Name(id="Optional" | "Union" as kind), slice=inner):
            for one in inner.elts if isinstance(inner, ast.Tuple) else [inner]:
                yield from _parts(one, path)
            if kind == "Optional":
                yield TYPES["None"]
        case ast.Subscript(value=ast.Name(id=name)) | ast.Name(id=name) if name in TYPES:
            yield TYPES[name]
        case ast.Name(id=name):
            alias = _alias(name, path)
            yield from [None] if alias is None else _parts(*alias)
        case _:
            yield None


def _alias(name: str, path: Path) -> tuple[ast.expr, Path] | None:
    """The definition of a name in a module of this package, and the file of the definition."""
    for node in module_tree(path).body:
        if isinstance(node, ast.Assign) and any(isinstance(one, ast.Name) and one.id == name for one in node.targets):
            return node.value, path
        if isinstance(node, ast.ImportFrom) and name in [one.name for one in node.names]:
            parts = (node.module or "").split(".")
            location = PACKAGE.parent.joinpath(*parts)
            file = location / "__init__.py" if location.is_dir() else location.with_suffix(".py")
            return _alias(name, file) if parts[0] == PACKAGE.name and file.is_file() else None
    return None
