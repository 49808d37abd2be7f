"""Pages of attacks, methods, detectors and scores, made from their docstrings and from the results in docs/results."""

from __future__ import annotations

import csv
import inspect
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docstring_parser

from bdclean import attacks, cleansing
from bdclean.attacks import Attack
from bdclean.cleansing import Cleanser
from bdclean.filtering import SCORES, Score
from bdclean.scanning import DETECTORS, Detector

RESULTS = {
    "cifar10_small.csv": ("CIFAR-10, small CNN, 2,500 images, one seed", "results/cifar10.md"),
    "shapes_seed2.csv": ("embedded images, 500 images, one seed", "results/embedded.md"),
}
"""Files of results, what they were measured on, and the page with all of them."""
NAMES = {"StrongDistillCleanseModule": "StrongDistill", "DistillCleanseModule": "DistillCleanse"}
"""What classes are called in the files of results."""


@dataclass(frozen=True)
class Option:
    """An argument of a constructor.

    Attributes:
        name: Its name.
        default: Its default as Python writes it; empty if it has none.
        help: What the docstring says of it.
    """

    name: str
    default: str
    help: str


@dataclass(frozen=True)
class Kind:
    """A group of pages.

    Attributes:
        folder: Of its pages.
        title: Of its overview.
        text: Of its overview, before the table.
        option: The option of the command line that takes a class of it.
        command: A command with such a class.
        classes: The classes.
        base: What they have in common: its arguments come last.
    """

    folder: str
    title: str
    text: str
    option: str
    command: str
    classes: tuple[type, ...]
    base: type


KINDS = (
    Kind(
        "attacks",
        "Attacks",
        "An attack puts a trigger on some training images and trains the network to predict the target class for them. "
        "`bdclean fit --data.attack NAME` chooses one; `configs/attack/NAME.yaml` has the paper's settings, and "
        "`configs/attack/NAME_shapes.yaml` settings that work on the embedded images, where the paper's do not.",
        "data.attack",
        "bdclean fit --data.attack {name}",
        tuple(attacks.ATTACKS.values()),
        Attack,
    ),
    Kind(
        "methods",
        "Cleansing methods",
        "A method turns a suspect into a cleansed network. `bdclean cleanse --method NAME` chooses one. Methods that "
        "expect labels use the suspect's predictions instead, unless `--method.supervision labels` is given. *Time* is "
        "relative to FineTune: medians over the suspects of `configs/benchmark/cifar10.yaml` (small CNN, 2,500 images, "
        "12 epochs). Without batch norms and dropout the student starts with the suspect's predictions; there "
        "`FineTune`, `NAD` and `MCR` need labels.",
        "method",
        "bdclean cleanse --ckpt suspect.ckpt --method {name}",
        tuple(getattr(cleansing, name) for name in cleansing.__all__ if name != "Cleanser"),
        Cleanser,
    ),
    Kind(
        "detectors",
        "Detectors",
        "A detector gives each class a score and a p-value. `bdclean scan` runs all of them, `--detector NAME` one.",
        "detector",
        "bdclean scan --ckpt suspect.ckpt --detector {name}",
        DETECTORS,
        Detector,
    ),
    Kind(
        "scores",
        "Scores of images",
        "A score says how likely an image has a trigger. `bdclean filter --score NAME` chooses one.",
        "score",
        "bdclean filter --ckpt suspect.ckpt --score {name}",
        SCORES,
        Score,
    ),
)


def overview(kind: Kind) -> str:
    """The page that lists all classes of a kind."""
    rows = [
        f"| [{one.__name__}]({one.__name__}.md) | {summary(one)} |{_needs(one) if kind.base is Cleanser else ''}"
        for one in ordered(kind)
    ]
    methods = ("| name | description | needs | time |", "|---|---|---|---|")
    head = methods if kind.base is Cleanser else ("| name | description |", "|---|---|")
    return "\n".join([f"# {kind.title}", "", kind.text, "", *head, *rows, ""])


def _needs(method: type[Cleanser]) -> str:
    """Two cells: what a method needs, and its time relative to FineTune."""
    images = "labels or predictions" if "supervision" in inspect.signature(method).parameters else "images"
    return f" {images if method.uses_images else 'nothing'} | {method.relative_time:g} |"


def page(kind: Kind, one: type, results: Path, pictures: Sequence[tuple[str, str]] = ()) -> str:
    """The page of a class.

    Args:
        kind: Its kind.
        one: The class.
        results: Folder with files of results.
        pictures: Titles and file names of pictures of it.
    """
    name = one.__name__
    body, sources = described(one)
    parts = [f"# {name}", summary(one), *body]
    parts += [f"![{title}]({file})" for title, file in pictures]
    if kind.base is Attack and not pictures:
        parts.append("*Training or preparation makes the trigger, so that this page has no picture of it.*")
    parts.append(f"```bash\n{kind.command.format(name=name)}\n```")
    if listed := options(one, kind.base):
        rows = [f"| `{one.name}` | {_code(one.default)} | {cell(one.help)} |" for one in listed]
        how = f"On the command line `--{kind.option}.{listed[0].name}` and so on; in Python arguments of `{name}`."
        parts += ["## Options", how, "\n".join(["| option | default | meaning |", "|---|---|---|", *rows])]
    if sources:
        parts += ["## Reference", *sources]
    parts += _results(kind, NAMES.get(name, name), results)
    return "\n\n".join(parts) + "\n"


def ordered(kind: Kind) -> list[type]:
    """The classes of a kind by name; the default first."""
    return sorted(kind.classes, key=lambda one: (one.__name__ != "ScanDistill", one.__name__.lower()))


def summary(one: type) -> str:
    """The first sentence of a class's docstring."""
    return cell(docstring_parser.parse(one.__doc__ or "").short_description or "")


def described(one: type) -> tuple[list[str], list[str]]:
    """The other paragraphs of a docstring, and those that name the paper."""
    text = docstring_parser.parse(inspect.cleandoc(one.__doc__ or "")).long_description or ""
    paragraphs = [" ".join(part.split()) if not part.lstrip().startswith("-") else part for part in text.split("\n\n")]
    sources = [part.partition(":")[2].strip() for part in paragraphs if part.startswith("Source")]
    return [part for part in paragraphs if part and not part.startswith("Source")], sources


def options(one: type, base: type) -> list[Option]:
    """The arguments of a constructor, with those that it hands on to its bases."""
    found: dict[str, Option] = {}
    for owner in inspect.getmro(one):
        if not issubclass(owner, base) or "__init__" not in vars(owner):
            continue
        helps = {arg.arg_name: arg.description or "" for arg in docstring_parser.parse(owner.__doc__ or "").params}
        parameters = list(inspect.signature(owner).parameters.values())
        for parameter in parameters:
            if parameter.kind is parameter.VAR_KEYWORD or parameter.name == "suspect":
                continue
            default = "" if parameter.default in (parameter.empty, None) else str(parameter.default)
            found.setdefault(parameter.name, Option(parameter.name, default, helps.get(parameter.name, "")))
        if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
            break
    return list(found.values())


def cell(text: str) -> str:
    """A text for a cell of a table."""
    return " ".join(text.split()).replace("|", "\\|")


def _code(text: str) -> str:
    return f"`{text}`" if text else ""


def _results(kind: Kind, name: str, folder: Path) -> list[str]:
    """The figures of a class, where a file has some."""
    if kind.base in (Detector, Score):
        return []
    parts = []
    for file, (title, where) in RESULTS.items():
        if not (folder / file).exists():
            continue
        with open(folder / file, encoding="utf-8", newline="") as lines:
            rows = [row for row in csv.DictReader(lines) if not row["error"]]
        table = _of_attack(rows, name) if kind.base is Attack else _of_method(rows, name)
        if table:
            parts += [f"On {title} ([all results](../{where})):", table]
    return ["## Results", *parts] if parts else []


def _of_attack(rows: Sequence[dict[str, Any]], name: str) -> str:
    """Methods against an attack, the strongest first."""
    found = [row for row in rows if row["suspect"] == name]
    if not found:
        return ""
    acc, asr = _mean(found, "suspect_acc"), _mean(found, "suspect_asr")
    lines = ["| method | ACC | ASR |", "|---|---|---|", f"| (suspect) | {acc} | {asr} |"]
    best = sorted(found, key=lambda row: -float(row["der"] or 0))
    return "\n".join([*lines, *(f"| {row['method']} | {row['acc']} | {row['asr']} |" for row in best)])


def _of_method(rows: Sequence[dict[str, Any]], name: str) -> str:
    """A method against all attacks."""
    found = [row for row in rows if row["method"] == name]
    if not found:
        return ""
    lines = ["| suspect | ACC before | ASR before | ACC | ASR |", "|---|---|---|---|---|"]
    columns = ("suspect", "suspect_acc", "suspect_asr", "acc", "asr")
    return "\n".join([*lines, *("| " + " | ".join(row[column] for column in columns) + " |" for row in found)])


def _mean(rows: Iterable[dict[str, Any]], name: str) -> str:
    values = [float(row[name]) for row in rows if row[name]]
    return f"{statistics.fmean(values):.2f}" if values else ""
