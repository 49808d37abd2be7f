"""Documentation, help, messages, comments and docstrings use the field's terms, not the project's earlier dialect."""

import ast
import importlib
import inspect
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

from bdclean.cli import help
from bdclean.cli.classes import CLASSES
from bdclean.cli.instant import usage
from bdclean.cli.options import SUBCOMMANDS
from tests.conftest import CONFIGS

ROOT = CONFIGS.parent
PAGES = sorted(path for path in (*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")) if path.name != "log.md")
"""All pages but the log, which keeps the words of its day."""
DIALECT = {
    r"answers?\b(?! that question)": "outputs, predictions, logits or probabilities",
    r"answer(ed|ing)\b": "outputs or predicts",
    r"shall\b": "must, should or will",
    r"(takes?|took|taken|goes|gone|went|going) over\b": "flips, ASR",
    r"whose making": "reference",
    r"(is|are|was|were|be) told\b": "is passed, gets",
    r"(some|no|any)body(?!'s business)\b": "a user, an attacker, a caller",
    r"are no such\b": "say what they are",
    r"hands? on\b|handed on\b": "passes, outputs",
    r"no (saying|telling)\b": "inconclusive",
    r"is said to\b|are said to\b": "is reported",
    r"of one's own\b": "your own",
    r"stands? (there|beside|in its place)\b": "is",
    r"lies? beside\b": "is beside",
    r"so many\b": "say how many",
    r"is lost to\b|are lost to\b": "say what cannot be used",
    r"(is|are) heard\b": "is reported",
    r"as it (is|was) meant\b": "say how",
    r"As in [A-Z]\w+\b": "the meaning itself",
    r"The same for\b": "the meaning itself",
    r"would do\b": "is enough",
    r"a scan of it\b": "the noun",
    r"what (it|they|he|she) (does|do|says?|holds?)\b": "the noun",
}
"""What is an error, and what to write instead."""


ROOMS = tuple(
    sorted({"*.py"} | {path.name for path in (ROOT / "bdclean").iterdir() if (path / "__init__.py").exists()})
)
"""Parts of the package whose comments and docstrings are checked: a folder, or a pattern of files."""


def mistakes(text: str) -> list[str]:
    # What stands between backticks is a name.
    plain = re.sub(r"```.*?```|`[^`\n]*`", "", text, flags=re.DOTALL)
    return [
        f"{found[0]!r} (write: {instead}) in {plain[max(0, found.start() - 40) : found.end() + 40]!r}"
        for pattern, instead in DIALECT.items()
        for found in re.finditer(rf"\b(?:{pattern})", plain)
    ]


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_pages(page: Path) -> None:
    assert not mistakes(page.read_text(encoding="utf-8"))


@pytest.mark.parametrize("command", SUBCOMMANDS)
def test_help_of_commands(command: str) -> None:
    assert not mistakes(help.of_command(command))
    assert not mistakes(usage())


@pytest.mark.parametrize(("option", "name"), [(option, name) for option in help.GROUPS for name in CLASSES[option]])
def test_help_of_classes(option: str, name: str) -> None:
    assert not mistakes(help.of_class(option, name) or "")


def docstrings(name: str) -> Iterator[str]:
    """The docstrings that the reference shows for an object: its own, and those of its public members."""
    module, _, last = name.rpartition(".")
    found = getattr(importlib.import_module(module), last)
    yield found.__doc__ or ""
    public = vars(found).items() if inspect.isclass(found) or inspect.ismodule(found) else ()
    for member, value in public:
        here = getattr(value, "__module__", found.__name__) in (name, getattr(found, "__module__", name))
        if not member.startswith("_") and here and (callable(value) or isinstance(value, property)):
            yield value.__doc__ or ""


REFERENCE = re.findall(r"^::: (bdclean\.\w+\.[\w.]+)", (ROOT / "docs" / "reference.md").read_text(), re.MULTILINE)


@pytest.mark.parametrize("name", REFERENCE)
def test_the_reference(name: str) -> None:
    assert not [one for text in docstrings(name) for one in mistakes(text)]


def sentences() -> Iterator[tuple[str, str]]:
    """Texts of several words in the package that are no docstrings, and where each is."""
    for path in sorted((ROOT / "bdclean").rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        # A text that is a statement of its own is a docstring.
        docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree):
            text = node.value if isinstance(node, ast.Constant) and id(node) not in docstrings else None
            if isinstance(text, str) and text.count(" ") > 1:
                yield f"{path.relative_to(ROOT)}:{node.lineno}", text


def test_messages() -> None:
    found = [f"{where}: {one}" for where, text in sentences() for one in mistakes(text)]
    assert not found, "\n".join(found)


REPORTED = {"InputError", "RefusedError", "warn", "rank_zero_warn", "Banner", "Text", "Tile", "Given"}
"""Calls whose texts a user reads, short ones too."""


def reported() -> Iterator[tuple[str, str]]:
    """The texts in calls of `REPORTED`, with a placeholder for each value in them, and where each is."""
    for path in sorted((ROOT / "bdclean").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] in REPORTED:
                for argument in [*node.args, *(keyword.value for keyword in node.keywords)]:
                    yield f"{path.relative_to(ROOT)}:{argument.lineno}", literal(argument)


def literal(node: ast.expr) -> str:
    """The text of an expression, with N for what is known only at run time."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else "N"
    if isinstance(node, ast.JoinedStr):
        return "".join(map(literal, node.values))
    return "N"


def test_reported_texts() -> None:
    texts = list(reported())
    assert len(texts) > 500
    found = [f"{where}: {one}" for where, text in texts for one in mistakes(text)]
    assert not found, "\n".join(found)


OPTION = re.compile(r"^  (--[\w.]+)(.*(?:\n {10,}.*)*)", re.MULTILINE)
FLAGS = {"--config", "--print_config", "--quiet", "--list"}
"""Options without a default."""


def unclear(page: str) -> list[str]:
    """Options of a page of help whose text names no default, or begins with a word that needs another text."""
    found = {name: " ".join(text.split()) for name, text in OPTION.findall(page)}
    missing = [name for name, text in found.items() if not re.search("efault|Required", text) and name not in FLAGS]
    begin = r"(?:[A-Z]+ |\{\S+ )?(Its?|Their|They|That|Those|These|This|Of|The same|Likewise|As) "
    return [*missing, *(name for name, text in found.items() if re.match(begin, text))]


@pytest.mark.parametrize("command", SUBCOMMANDS)
def test_options_of_commands_stand_by_themselves(command: str) -> None:
    assert not unclear(help.of_command(command))


@pytest.mark.parametrize(("option", "name"), [(option, name) for option in help.GROUPS for name in CLASSES[option]])
def test_options_of_classes_stand_by_themselves(option: str, name: str) -> None:
    assert not unclear(help.of_class(option, name) or "")


def test_an_option_that_needs_another_text_is_recognised() -> None:
    assert unclear("  --lr X    Of SGD. Default: 1.\n  --eps X\n            Largest change.\n") == ["--eps", "--lr"]
    assert not unclear("  --lr X    Learning rate of SGD. Default: 1.\n")


def remarks(path: Path) -> Iterator[tuple[int, str]]:
    """Line and text of each comment and each docstring of a file, private ones too."""
    source = path.read_text(encoding="utf-8")
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield node.lineno, node.value.value


@pytest.mark.parametrize("room", ROOMS)
def test_comments_and_docstrings(room: str) -> None:
    package = ROOT / "bdclean"
    files = sorted(package.glob(room) if "*" in room else (package / room).rglob("*.py"))
    assert files
    found = [
        f"{path.relative_to(ROOT)}:{line}: {one}"
        for path in files
        for line, text in remarks(path)
        for one in mistakes(text)
    ]
    assert not found, "\n".join(found)


def test_the_dialect_is_recognised() -> None:
    assert len(mistakes("The suspect's answers take over; of whose making it shall be.")) == 4
    assert not mistakes("The suspect predicts class 3; `answers` is a name.")
