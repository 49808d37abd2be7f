"""What values an option takes, as far as the annotation in the source says it without importing anything."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bdclean.source import PACKAGE, module_tree

TYPES = {"int": "int", "float": "float", "bool": "bool", "None": "NoneType", "tuple": "pair", "dict": "dict"}
TYPES |= dict.fromkeys(("list", "Sequence", "Iterable"), "list") | {"Mapping": "dict"}
"""Types in annotations, and what the parser's messages call them."""
DOUBTFUL = ("null", "none", "true", "false", "yes", "no", "on", "off", "nan", "inf", "infinity")
"""Words that YAML may take for something other than a text."""


@dataclass(frozen=True)
class Values:
    """The values of an option.

    Attributes:
        choices: Words that it takes.
        types: Types that it takes, none of which a text can be.
    """

    choices: tuple[str, ...]
    types: tuple[str, ...]

    def refuses(self, value: str) -> bool:
        """Whether a value certainly is none of these: a word, where words are given or none is taken."""
        word = re.fullmatch(r"[A-Za-z_][\w.-]*", value) is not None
        return word and value not in self.choices and value.lower() not in DOUBTFUL


def is_word(value: str) -> bool:
    """Whether YAML reads a value as a text, as it stands."""
    return not re.search(r"^[\s\"'\[{&*!|>%@`]|[:#]|\n", value) and value.lower() not in DOUBTFUL and value != "~"


def values_of(annotation: ast.expr | None, path: Path) -> Values | None:
    """What an annotation says; None if any text may be a value.

    Args:
        annotation: Of an argument.
        path: The module that it stands in.
    """
    found = list(_parts(annotation, path))
    if None in found:
        return None
    parts = [part for part in found if part is not None]
    choices = tuple(part.value for part in parts if isinstance(part, ast.Constant))
    return Values(tuple(map(str, choices)), tuple(part for part in parts if isinstance(part, str)))


def _parts(node: ast.expr | None, path: Path) -> Iterator[ast.Constant | str | None]:
    """Constants and names of types that an annotation allows; None for what is not known."""
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
    """What a module of this package calls a name, and where that stands."""
    for node in module_tree(path).body:
        if isinstance(node, ast.Assign) and any(isinstance(one, ast.Name) and one.id == name for one in node.targets):
            return node.value, path
        if isinstance(node, ast.ImportFrom) and name in [one.name for one in node.names]:
            parts = (node.module or "").split(".")
            place = PACKAGE.parent.joinpath(*parts)
            file = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
            return _alias(name, file) if parts[0] == PACKAGE.name and file.is_file() else None
    return None
