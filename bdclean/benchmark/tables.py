"""Tables of the results of a benchmark."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from lightning.pytorch.loggers import TensorBoardLogger

from bdclean.benchmark.ranks import ALPHA, Ranked, Scores, needed_suspects, rank, scores
from bdclean.benchmark.rows import COLUMNS, FIGURES, IDENTITY, WEAK_ACC, WEAK_ASR, Row, groups, mean, once, parts
from bdclean.checkpoint import write_text
from bdclean.reporting.files import write_csv
from bdclean.reporting.sections import Section, Text
from bdclean.tables import Table

LEGEND = (
    "ACC: accuracy on clean test images, %. ASR: share of triggered test images that are predicted as the target "
    "class, %. RA: share of these that are predicted as their true class, %. DER: 50 plus half of the fall in ASR "
    "minus half of the fall in ACC; 100 is a removed backdoor at no cost, 50 no effect.",
    "ACC lost: points of ACC; clean: of suspects without a backdoor, which the other columns leave out. s: seconds of "
    "the cleansing alone. MiB: peak memory of the process, or of the GPU. Values are means over suspects and seeds, ± "
    "the standard deviation.",
)
"""Explanation of the tables, in paragraphs."""


def sections(found: Sequence[Row]) -> tuple[Section, ...]:
    """Sections: legend, warnings, averages per method, ACC / ASR of each cell, ranks, failures, all figures."""
    failed = [row for row in found if row.error is not None]
    result = [Section("Legend", (Text("\n".join(LEGEND), explains=True),))]
    if lines := warnings(found):
        result.append(Section("Warnings", (Text("\n".join(lines)),)))
    for title, part in parts(found).items():
        result.append(Section(f"Methods{title}", (_averages(part),)))
        result.append(Section(f"ACC / ASR{title}", (_matrix(part),)))
        if len((aligned := scores(part)).methods) > 1:
            result.append(Section(f"Ranks{title}", (ranking(rank(aligned)), Text(ranking_explained(aligned)))))
    if failed:
        lines = [f"- {', '.join(row.identity)}: {row.error}" for row in failed]
        result.append(Section("Failed", (Text("\n".join(lines), explains=True),)))
    result.append(Section("All figures", (_all_figures([row for row in found if row.error is None]),)))
    return tuple(result)


def warnings(found: Sequence[Row]) -> list[str]:
    """Failed cells, and suspects whose rows mean little: the attack did not take, or the network is close to chance."""
    failed = sum(row.error is not None for row in found)
    lines = [f"{failed} of {len(found)} cells failed; the reasons are in the section Failed"] if failed else []
    for row in once(found):
        name = f"{row.suspect} ({row.network}, seed {row.seed})"
        if row.backdoored and row.suspect_asr is not None and row.suspect_asr < WEAK_ASR:
            lines.append(f"{name}: the attack did not take, ASR {row.suspect_asr:.1f} %")
        if row.suspect_acc is not None and row.suspect_acc < WEAK_ACC:
            lines.append(f"{name}: the accuracy of the suspect is close to chance, ACC {row.suspect_acc:.1f} %")
    return lines


def markdown(found: Sequence[Section]) -> str:
    """Sections as Markdown, without their pictures."""
    shown = (
        [f"## {section.title}"]
        + [
            part.text if isinstance(part, Text) else part.markdown()
            for part in section.parts
            if isinstance(part, Text | Table)
        ]
        for section in found
    )
    return "\n\n".join(text for texts in shown for text in texts) + "\n"


def _averages(part: Sequence[Row]) -> Table:
    header = ("method", "ACC", "ACC lost", "ASR", "RA", "DER", "ACC lost, clean", "s", "MiB", "done")
    before = once([row for row in part if row.backdoored] or part)
    acc, asr, ra = (mean(before, f"suspect_{name}") for name in ("acc", "asr", "ra"))
    rows = [("(suspects)", acc, "", asr, ra, *[""] * 5)]
    for (method,), cells in groups(part, "method").items():
        parts = groups(cells, "backdoored")
        backdoored, clean = parts.get((True,), []), parts.get((False,), [])
        done = f"{len(backdoored) + len(clean)} of {len(cells)}"
        figures = [mean(backdoored, name) for name in ("acc", "acc_lost", "asr", "ra", "der")]
        rows.append(
            (method, *figures, mean(clean, "acc_lost"), mean(cells, "seconds"), mean(cells, "peak_memory"), done)
        )
    return Table(header, tuple(rows))


def _matrix(part: Sequence[Row]) -> Table:
    suspects = groups(part, "suspect")
    pairs = (once(rows) for rows in suspects.values())
    rows = [("(suspects)", *(f"{mean(one, 'suspect_acc')} / {mean(one, 'suspect_asr')}" for one in pairs))]
    for (method,), of_method in groups(part, "method").items():
        cells = groups(of_method, "suspect")
        found = (cells.get(name, []) for name in suspects)
        rows.append((method, *(f"{mean(cell, 'acc')} / {mean(cell, 'asr')}" for cell in found)))
    return Table(("method", *(name for (name,) in suspects)), tuple(rows))


def ranking(found: Sequence[Ranked]) -> Table:
    """A table of ranked methods."""
    rows = [
        (one.method, f"{one.rank:.1f}", f"{one.low:.1f} to {one.high:.1f}", str(one.better), str(one.worse))
        for one in found
    ]
    return Table(("method", "mean rank", "95 % interval", "better than", "worse than"), tuple(rows))


def _suspects(number: int) -> str:
    return f"{number} suspect{'' if number == 1 else 's'}"


def ranking_explained(found: Scores) -> str:
    """How methods were ranked and tested, and what was left out, in paragraphs."""
    suspects, methods = len(found.suspects), len(found.methods)
    seeds = sum(map(len, found.der))
    lines = [
        f"Mean rank of {methods} methods by DER over {_suspects(suspects)} ({seeds} with all seeds); 1 is the best. "
        "Suspects without a backdoor, or whose attack did not take, do not count. A failed cell counts as no effect, "
        "DER 50. Intervals: bootstrap over suspects, and over the seeds of each.",
        f"Better than, worse than: number of methods whose DER differs with p \u2264 {ALPHA} (Wilcoxon's signed-rank "
        "test over suspects, of means over seeds, with Holm's correction for all pairs of methods).",
    ]
    if suspects < (needed := needed_suspects(methods)):
        lines.append(
            f"With {_suspects(suspects)}, no difference between {methods} methods can reach p \u2264 {ALPHA}; this "
            f"needs {needed} suspects."
        )
    if found.left_out:
        lines.append(f"Not ranked, as they have no result or were run on fewer suspects: {', '.join(found.left_out)}.")
    return "\n".join(lines)


def _all_figures(found: Sequence[Row]) -> Table:
    titles = ("ACC", "ASR", "RA", "agreement", "DER", "ACC lost", "s", "MiB")
    rows = [
        (*names, str(len(cell)), *(mean(cell, name) for name in FIGURES))
        for names, cell in groups(found, *IDENTITY[:4]).items()
    ]
    return Table(("suspect", "network", "images", "method", "seeds", *titles), tuple(rows))


def write(found: Sequence[Row], folder: Path, more: Sequence[Section] = ()) -> None:
    """Write `results.csv`, `results.md` with further sections at its end, and the results for TensorBoard's HParams."""
    values = [["" if (value := getattr(row, name)) is None else value for name in COLUMNS] for row in found]
    write_csv(folder / "results.csv", COLUMNS, values)
    write_text(folder / "results.md", markdown((*sections(found), *more)))
    shutil.rmtree(folder / "tensorboard", ignore_errors=True)
    for row in found:
        if row.error is None:
            logger = TensorBoardLogger(folder, "tensorboard", ".".join(row.identity), default_hp_metric=False)
            figures = {f"final/{name}": value for name, value in row.figures.items()}
            logger.log_hyperparams(dict(zip(IDENTITY, row.identity, strict=True)), figures)
            logger.finalize("success")
