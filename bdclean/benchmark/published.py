"""Figures from papers, beside those of a benchmark with the same data set, network and attacks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bdclean.benchmark.rows import Row, groups, mean
from bdclean.reporting.sections import Section, Text
from bdclean.tables import Table

Pair = tuple[float, float]
"""ACC and ASR in percent."""
EXPLAINED = (
    "ACC / ASR in percent. Data set, network and attack are the same; the training and other options of the attack may "
    "differ. Published: {paper.citation}; {paper.images}."
)
"""Explanation of a table, to format with the paper."""


@dataclass(frozen=True)
class Paper:
    """A table of a paper.

    Attributes:
        citation: The paper.
        source: The data set, by the name of its `--data.source`.
        arch: The architecture, by the name of its `--model.arch`.
        poison_rate: Share of the training images that are poisoned; clean-label attacks of any rate are compared, as
            rates are shares of the target class here.
        images: The images of the defender.
        methods: The methods, by their names in this program.
        figures: For each attack and label mode, the figures of the suspect and then those of each method.
    """

    citation: str
    source: str
    arch: str
    poison_rate: float
    images: str
    methods: tuple[str, ...]
    figures: Mapping[tuple[str, str], tuple[Pair, ...]]

    def of(self, result: Mapping[str, Any]) -> tuple[Pair, ...] | None:
        """The figures for the suspect of a cell.

        Args:
            result: The JSON of the cell.

        Returns:
            The figures as above; None if the paper has none for this data set, network and attack.
        """
        # Results of earlier versions have no source, failed cells have nothing.
        if result.get("source") is None or result["network"]["arch"] != self.arch:
            return None
        attack, options = result["attack"], result["attack_options"]
        if attack is None or Path(result["source"]).stem.lower() != self.source:
            return None
        mode = options["label_mode"]
        same_rate = mode == "clean-label" or options["poison_rate"] == self.poison_rate
        return self.figures.get((attack, mode)) if same_rate else None


# fmt: off
FTSAM_FIGURES: Mapping[tuple[str, str], tuple[Pair, ...]] = {
    ("BadNets", "all-to-one"):
    ((91.82, 93.79), (90.29, 1.70), (91.77, 0.84), (88.82, 1.96), (91.65, 3.83), (87.43, 4.48), (92.21, 1.63)),
    ("BadNets", "all-to-all"):
    ((91.89, 74.42), (91.07, 1.16), (92.05, 1.31), (90.73, 1.61), (92.33, 2.56), (89.39, 1.29), (91.87, 1.03)),
    ("Blended", "all-to-one"):
    ((93.44, 97.71), (92.48, 82.22), (92.57, 8.32), (92.09, 55.04), (93.00, 57.38), (88.24, 6.00), (92.44, 4.91)),
    ("InputAware", "all-to-one"):
    ((94.03, 98.35), (93.00, 65.85), (94.05, 10.95), (94.08, 10.43), (94.06, 11.10), (89.91, 8.92), (93.76, 1.07)),
    ("LabelConsistent", "clean-label"):
    ((84.55, 99.93), (90.38, 10.76), (90.67, 78.72), (90.01, 8.53), (82.55, 0.18), (85.66, 18.99), (90.72, 3.52)),
    ("LF", "all-to-one"):
    ((93.01, 99.06), (92.37, 93.89), (92.05, 21.32), (91.72, 75.47), (92.53, 26.38), (88.92, 11.99), (91.07, 3.81)),
    ("SIG", "clean-label"):
    ((84.49, 97.87), (90.47, 5.74), (90.81, 7.06), (90.05, 6.60), (83.87, 97.24), (85.87, 1.32), (91.16, 0.80)),
    ("SSBA", "all-to-one"):
    ((92.88, 97.07), (92.47, 90.04), (92.21, 20.27), (92.15, 70.77), (92.02, 16.18), (86.53, 2.89), (92.12, 2.80)),
    ("TrojanNN", "all-to-one"):
    ((93.47, 99.99), (92.59, 35.50), (92.24, 67.73), (92.18, 5.77), (92.71, 84.82), (89.29, 0.54), (92.75, 4.12)),
    ("WaNet", "all-to-one"):
    ((92.80, 98.90), (93.14, 1.26), (92.94, 0.66), (93.07, 0.73), (93.24, 1.54), (90.70, 0.88), (92.87, 0.96)),
}
# fmt: on
"""Table of the paper of FT-SAM with 10 % poisoned images, in the form of `Paper.figures`."""

PAPERS = (
    Paper(
        'Zhu, Wei, Shen, Fan, Wu, "Enhancing Fine-Tuning based Backdoor Defense with Sharpness-Aware Minimization", '
        "ICCV 2023 (arXiv:2304.11823)",
        "cifar10",
        "preact_resnet18",
        0.1,
        "10 % of the training images poisoned, 2,500 labelled images for the defender",
        ("FineTune", "FinePrune", "NAD", "ANP", "IBAU", "FTSAM"),
        FTSAM_FIGURES,
    ),
)
"""The papers. A new one needs only an entry here."""


def sections(rows: Sequence[Row], results: Sequence[Mapping[str, Any]]) -> tuple[Section, ...]:
    """A section for each paper with figures for suspects of the benchmark; none if no paper has any.

    Args:
        rows: The results of the cells.
        results: The JSON of each cell, in the same order.
    """
    found = []
    for paper in PAPERS:
        pairs = [(row, paper.of(result)) for row, result in zip(rows, results, strict=True)]
        theirs = {row.suspect: figures for row, figures in pairs if figures is not None}
        if theirs:
            ours = [row for row, figures in pairs if figures is not None]
            title = f"Beside published figures ({paper.source}, {paper.arch})"
            explained = Text(EXPLAINED.format(paper=paper), explains=True)
            found.append(Section(title, (explained, _table(paper, theirs, ours))))
    return tuple(found)


def _table(paper: Paper, theirs: Mapping[str, tuple[Pair, ...]], ours: Sequence[Row]) -> Table:
    """Methods by suspects: first the figures of this benchmark, then the published ones."""
    by_suspect = {name: part for (name,), part in groups(ours, "suspect").items()}
    rows = [("(suspects)", "here", "", *(_pair(by_suspect[name], "suspect_") for name in theirs))]
    for (method, images), part in groups(ours, "method", "images").items():
        cells = {name: cell for (name,), cell in groups(part, "suspect").items()}
        rows.append((method, "here", images, *(_pair(cells.get(name, [])) for name in theirs)))
    for number, method in enumerate(("(suspects)", *paper.methods)):
        pairs = (figures[number] for figures in theirs.values())
        rows.append((method, "published", "", *(f"{acc:.1f} / {asr:.1f}" for acc, asr in pairs)))
    return Table(("method", "figures", "images", *theirs), tuple(rows))


def _pair(rows: Sequence[Row], prefix: str = "") -> str:
    return f"{mean(rows, f'{prefix}acc')} / {mean(rows, f'{prefix}asr')}"
