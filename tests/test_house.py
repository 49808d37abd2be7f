"""The structure of the package: one direction of dependencies, and short files."""

import ast
from collections.abc import Iterator
from pathlib import Path

import bdclean

PACKAGE = Path(bdclean.__file__).parent
LONGEST = 250
"""Maximum lines of a file."""
DATA = {"bdclean.inert.names"}
"""Modules that are tables rather than code."""
REACHING = ("self.trainer.", ".trainer.datamodule")
"""Uses of the Trainer, which rooms below the engine must not have."""


def modules() -> dict[str, Path]:
    paths = sorted(PACKAGE.rglob("*.py"))
    names = {path: [PACKAGE.name, *path.relative_to(PACKAGE).with_suffix("").parts] for path in paths}
    return {".".join(parts[:-1] if parts[-1] == "__init__" else parts): path for path, parts in names.items()}


def imports(path: Path) -> Iterator[str]:
    """Modules that are imported when this one is; those that functions import later do not count."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Import):
            yield from (one.name for one in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{one.name}" for one in node.names)


def test_no_file_is_too_long() -> None:
    lengths = {name: len(path.read_text(encoding="utf-8").splitlines()) for name, path in modules().items()}
    assert {name: length for name, length in lengths.items() if length > LONGEST and name not in DATA} == {}


def test_no_import_cycles() -> None:
    known = modules()
    # A package counts as the modules that it imports from.
    graph = {name: {one for one in imports(path) if one in known} - {name} for name, path in known.items()}
    done: set[str] = set()

    def visit(name: str, way: tuple[str, ...]) -> None:
        assert name not in way, " -> ".join((*way[way.index(name) :], name))
        if name not in done:
            for other in sorted(graph[name]):
                # A module names its own package to import a sibling.
                if not name.startswith(f"{other}."):
                    visit(other, (*way, name))
            done.add(name)

    for name in known:
        visit(name, ())


def test_nothing_uses_the_trainer_below_the_engine() -> None:
    below = [path for room in ("data", "attacks", "scanning") for path in (PACKAGE / room).rglob("*.py")]
    assert below
    found = [str(path) for path in below for way in REACHING if way in path.read_text(encoding="utf-8")]
    assert found == []
