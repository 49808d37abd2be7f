"""Figures for people: tables, JSON, pictures."""

from __future__ import annotations

import base64
import csv
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torchvision.transforms.v2.functional import pil_to_tensor, to_pil_image
from torchvision.utils import make_grid

from bdclean.checkpoint import write_text
from bdclean.metrics import Share, defense_effectiveness_rate
from bdclean.scanning import FEWEST, Finding, p_value, shown, stands_out

FIGURES = ("acc", "asr", "ra", "agreement")
LISTED = 5
"""Classes of a scan that are listed in a terminal."""
WIDE = 1.0
"""Percent: from this half width up, the 95 % interval of a figure is given in a terminal."""
RUN_BY_SPREADSHEETS = ("=", "+", "-", "@", "\t", "\r", "\n")
"""What a cell begins with that a spreadsheet takes for a formula."""
REMAINS = 5.0
"""Percent of the images: if what was recovered in the suspect still takes more over, a backdoor is left."""


def figures(results: list[Mapping[str, float]], names: tuple[str, ...] = FIGURES[:3]) -> dict[str, float | None]:
    """Pick a test's figures out of what Lightning answers: percent with two decimals, None where there is none."""
    merged = {key: value for result in results for key, value in result.items()}
    values = {name: float(merged.get(f"test/{name}", math.nan)) for name in names}
    return {name: round(value, 2) if math.isfinite(value) else None for name, value in values.items()}


def intervals(shares: Mapping[str, Share | None]) -> dict[str, dict[str, float] | None]:
    """The 95 % interval of each figure in percent, with two decimals, and of how many images it is."""
    return {
        name: None
        if share is None
        else {"low": round(share.interval[0], 2), "high": round(share.interval[1], 2), "images": share.images}
        for name, share in shares.items()
    }


def wide_intervals(networks: Mapping[str, Mapping[str, Mapping[str, float] | None]]) -> list[str]:
    """A line for the terminal with the intervals of figures that are of few images, if there are any.

    Args:
        networks: The name of each network, which may be empty, and its `intervals`.
    """
    found = [
        f"{network} {figure.upper() if len(figure) < 4 else figure} {one['low']:.2f} to {one['high']:.2f} "
        f"({one['images']:g} image{'' if one['images'] == 1 else 's'})".strip()
        for network, own in networks.items()
        for figure, one in own.items()
        if one is not None and (one["high"] - one["low"]) / 2 >= WIDE
    ]
    return [f"95 % intervals of figures of few images: {', '.join(found)}."] if found else []


def write_json(path: Path, report: Mapping[str, Any]) -> None:
    """Write a report whole or not at all."""
    write_text(path, json.dumps(report, indent=2) + "\n")


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a table whole or not at all."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows([_inert(cell) for cell in row] for row in rows)
    write_text(path, text.getvalue())


def _inert(cell: object) -> object:
    """A cell of one line that no spreadsheet runs: a text that begins like a formula gets an apostrophe before it."""
    if not isinstance(cell, str):
        return cell
    before = "'" if cell.startswith(RUN_BY_SPREADSHEETS) else ""
    return before + "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in cell)


def movements(matrix: Tensor, names: Sequence[str] = ()) -> list[dict[str, Any]]:
    """How far predictions moved, class by class.

    Args:
        matrix: (C, C) counts of images: rows the suspect's classes, columns the cleansed network's.
        names: What the classes are called, if that is known.

    Returns:
        For each class how many images the suspect and the cleansed network put into it, and how many of the suspect's
        stayed, in percent; None where it had none.
    """
    before, after, stayed = matrix.sum(1).tolist(), matrix.sum(0).tolist(), matrix.diagonal().tolist()
    return [
        {
            "class": number,
            "name": _name(names, number),
            "suspect": had,
            "cleansed": has,
            "kept": round(100 * same / had, 2) if had else None,
        }
        for number, (had, has, same) in enumerate(zip(before, after, stayed, strict=True))
    ]


def _name(names: Sequence[str], number: int) -> str | None:
    """What a class is called, if that is known."""
    return names[number] if names else None


def called(number: int, name: str | None) -> str:
    """A class for people."""
    return f"{number}" if name is None else f"{number} ({name})"


def write_html(
    path: Path,
    report: Mapping[str, Any],
    pictures: Sequence[tuple[str, Tensor]],
    triggers: Sequence[tuple[str, Tensor]],
    history: Mapping[str, Sequence[tuple[int, float]]],
    description: str,
) -> None:
    """Write a report as one page that needs no other file, whole or not at all.

    Args:
        path: The file.
        report: What `write_json` writes.
        pictures: Title and image, (3, H, W) uint8 or in [0, 1].
        triggers: The same of what a scan recovered.
        history: What was logged: name to epochs and values.
        description: What the method did, as a Markdown table.
    """
    rows = [line.strip("| ").split(" | ") for line in description.splitlines() if not line.startswith("|--")]
    _write_page(
        path,
        "report.html.j2",
        r=report,
        pictures=_pngs(pictures),
        triggers=_pngs(triggers),
        curves=[_curve(name, values) for name, values in history.items()],
        description=rows,
        kind=_kind(report),
    )


def write_scan(path: Path, report: Mapping[str, Any], triggers: Sequence[tuple[str, Tensor]]) -> None:
    """Write what a scan found as one page that needs no other file, whole or not at all.

    Args:
        path: The file.
        report: What `write_json` writes.
        triggers: Title and picture of what was recovered.
    """
    classes = range(len(report["detectors"][0]["scores"]))
    rows = [[(one["scores"][number], one["p_values"][number]) for one in report["detectors"]] for number in classes]
    _write_page(path, "scan.html.j2", r=report, rows=rows, triggers=_pngs(triggers))


def _write_page(path: Path, template: str, **values: Any) -> None:
    # What a hostile file says is text here, never markup.
    environment = jinja2.Environment(loader=jinja2.PackageLoader("bdclean", "."), autoescape=True)
    page = environment.get_template(template).render(
        figure=lambda value: "\u2013" if value is None else f"{value:.2f}",
        verdict=sentence,
        called=called,
        shown=shown,
        **values,
    )
    write_text(path, page)


def _pngs(pictures: Sequence[tuple[str, Tensor]]) -> list[tuple[str, str]]:
    return [(title, _png(picture)) for title, picture in pictures]


def _png(picture: Tensor) -> str:
    file = io.BytesIO()
    to_pil_image(picture).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def _curve(name: str, values: Sequence[tuple[int, float]]) -> dict[str, object]:
    """A line in a picture of 300 by 160, from epoch 1 on."""
    low, high = min(value for _, value in values), max(value for _, value in values)
    last = values[-1][0]
    across, up = 280 / max(1, last - 1), 100 / max(high - low, 1e-9)
    points = " ".join(f"{10 + across * (x - 1):.1f},{125 - up * (y - low):.1f}" for x, y in values)
    return {"name": name, "points": points, "low": f"{low:.4g}", "high": f"{high:.4g}", "epochs": last}


def table(rows: Mapping[str, Mapping[str, float | None]]) -> str:
    """A table for the terminal: a row a network, a column a figure."""
    names = [name for name in FIGURES if any(name in row for row in rows.values())]
    width = max(len(name) for name in rows)
    lines = [" " * width + "".join(f"{name.upper() if len(name) < 4 else name:>11}" for name in names)]
    for label, row in rows.items():
        cells = ["-" if (value := row.get(name)) is None else f"{value:.2f}" for name in names]
        lines.append(f"{label:<{width}}" + "".join(f"{cell:>11}" for cell in cells))
    return "\n".join(lines)


def summary(report: Mapping[str, Any]) -> str:
    """What `bdclean cleanse` prints: both networks' figures in percent, and what the cleansing took."""
    suspect, cleansed = report["suspect"], report["cleansed"]
    lines = [table({"suspect": suspect, "cleansed": cleansed}), *wide_intervals(report["intervals"])]
    if None not in (suspect["acc"], suspect["asr"], cleansed["acc"], cleansed["asr"]):
        rate = defense_effectiveness_rate((suspect["acc"], suspect["asr"]), (cleansed["acc"], cleansed["asr"]))
        lines.append(f"DER {rate:.2f}")
    agreement = report["intervals"]["cleansed"].get("agreement")
    count = f"{agreement['images']} " if agreement else ""
    lines.append(
        f"{report['method']}{_had(report)} took {report['seconds']} s on {report['device']}. "
        f"All figures in percent, agreement on {count}{report['agreement_on']}."
    )
    if scan := report.get("scan"):
        lines += [f"Scan of the suspect: {verdict(scan['suspect'])}", f"of the cleansed: {verdict(scan['cleansed'])}"]
    if suspect["acc"] is None:
        lines += ["", _moved_most(report["classes"])]
    lines.append(report["conclusion"]["sentence"])
    return "\n".join(lines)


def warnings(report: Mapping[str, Any]) -> list[str]:
    """What a report warns of, a line each."""
    return [f"WARNING: {one}." for one in report["warnings"]]


def _had(report: Mapping[str, Any]) -> str:
    """On which of the images a method worked."""
    if not report["method_images"]:
        return ", which uses no images,"
    return f" on {report['method_images']} {_kind(report)} images"


def found(findings: Sequence[Finding], alpha: float, names: Sequence[str] = ()) -> dict[str, Any]:
    """What detectors found, as plain values.

    Args:
        findings: One of each detector.
        alpha: From this p-value down a backdoor is said to be found.
        names: What the classes are called, if that is known.

    Returns:
        `backdoor`, whether there is one, None where classes are too few to tell; the `class` that the strongest finding
        names, and its `name`; its `p_value`, over all detectors; `alpha`; `detectors`, with scores and p-values of each
        class.
    """
    likelihood = p_value(findings)
    suspected = min(findings, key=lambda finding: finding.p_value).suspected
    return {
        "backdoor": None if len(findings[0].scores) < FEWEST else likelihood <= alpha,
        "class": suspected,
        "name": _name(names, suspected),
        "p_value": likelihood,
        "alpha": alpha,
        "detectors": [
            {
                "detector": finding.detector,
                "class": finding.suspected,
                "name": _name(names, finding.suspected),
                "p_value": finding.p_value,
                "scores": [round(score, 4) for score in finding.scores.tolist()],
                "p_values": finding.p_values.tolist(),
            }
            for finding in findings
        ],
    }


def compared(
    before: Sequence[Finding],
    after: Sequence[Finding],
    shares: Sequence[Sequence[float | None]],
    alpha: float,
    names: Sequence[str] = (),
) -> dict[str, Any]:
    """What detectors found in the suspect and in the cleansed network, as plain values.

    Args:
        before: What each found in the suspect.
        after: The same of the cleansed network.
        shares: For each finding in the suspect, as `taken` has it, of the suspect and of the cleansed network.
        alpha: As in `found`.
        names: As in `found`.

    Returns:
        `suspect`, `cleansed`: as `found`, the suspect's detectors with `taken` and `taken_cleansed`; `doubts`: why the
        result is not to be trusted, a clause each.
    """
    suspect, cleansed = found(before, alpha, names), found(after, alpha, names)
    left = []
    for finding, row, (was, now) in zip(before, suspect["detectors"], shares, strict=True):
        row["taken"], row["taken_cleansed"] = was, now
        row["stands_out"] = stands_out(finding, len(before), alpha)
        if now is not None and now > REMAINS and row["stands_out"]:
            left.append(
                f"what {row['detector']} recovered in the suspect still takes {now:.0f} % to class "
                f"{called(row['class'], row['name'])}"
            )
    if cleansed["backdoor"]:
        left.append(f"a scan finds {verdict(cleansed)}")
    return {"suspect": suspect, "cleansed": cleansed, "doubts": left}


def verdict(scan: Mapping[str, Any]) -> str:
    """What `found` comes to, in a line."""
    p = shown(scan["p_value"])
    if scan["backdoor"]:
        return f"a backdoor towards class {called(scan['class'], scan['name'])} (p {p})"
    if scan["backdoor"] is None:
        return "no saying whether there is a backdoor: of two classes none can stand out"
    return f"no backdoor found (p {p}, class {called(scan['class'], scan['name'])} stands out most)"


def sentence(scan: Mapping[str, Any]) -> str:
    """The same with a capital letter; names of classes stay as they are."""
    text = verdict(scan)
    return f"{text[0].upper()}{text[1:]}"


def classes_table(scan: Mapping[str, Any], names: Sequence[str] = ()) -> str:
    """The p-values of the most suspicious classes, a column a detector, for the terminal, and the classes' names."""
    detectors = scan["detectors"]
    lines = ["class" + "".join(f"{one['detector']:>18}" for one in detectors)]
    columns = [one["p_values"] for one in detectors]
    order = sorted(range(len(columns[0])), key=lambda number: min(column[number] for column in columns))
    for number in order[:LISTED]:
        name = f"  {names[number]}" if names else ""
        lines.append(f"{number:>5}" + "".join(f"{shown(column[number]):>18}" for column in columns) + name)
    return "\n".join(lines)


def _kind(report: Mapping[str, Any]) -> str:
    """What was known of the images that the method had."""
    return "labelled" if report["options"].get("supervision") == "labels" else "unlabeled"


def _moved_most(classes: Sequence[Mapping[str, Any]]) -> str:
    """The classes that kept fewest of the suspect's predictions, for users who have nothing else to go by."""
    rows = sorted((row for row in classes if row["kept"] is not None), key=lambda row: row["kept"] or 0.0)[:10]
    lines = ["Least of the suspect's predictions stayed in these classes:", "  class  suspect  cleansed  stayed"]
    lines += [
        f"{row['class']:>7}{row['suspect']:>9}{row['cleansed']:>10}{row['kept']:>8.2f}  {row['name'] or ''}".rstrip()
        for row in rows
    ]
    return "\n".join(lines)


def trigger_picture(clean: Tensor, triggered: Tensor) -> Tensor:
    """Three rows of images: clean, triggered, and their difference, amplified and centred on grey.

    Args:
        clean: (N, 3, H, W) in [0, 1].
        triggered: The same images with the trigger.

    Returns:
        One image, (3, height, width) in [0, 1].
    """
    difference = triggered - clean
    amplified = 0.5 + difference / (2 * difference.abs().amax().clamp(min=1e-6))
    return image_grid(torch.cat([clean, triggered, amplified]), len(clean))


def image_grid(images: Tensor, columns: int) -> Tensor:
    """Images side by side, small ones enlarged: (N, C, H, W) in [0, 1] to (3, height, width) in [0, 1]."""
    grid = make_grid(images.cpu().clamp(0, 1), nrow=columns, pad_value=1.0)
    enlarge = max(1, 96 // images.shape[-1])
    return grid.repeat_interleave(enlarge, 1).repeat_interleave(enlarge, 2)


def confusion_picture(matrix: Tensor, title: str) -> Tensor:
    """A confusion matrix as an image, (3, height, width) uint8: rows true classes, columns predicted ones.

    Args:
        matrix: (C, C) counts.
        title: What stands above it.
    """
    classes = len(matrix)
    cell = max(6, min(44, 640 // classes))
    margin = 44
    shares = matrix / matrix.sum(1, keepdim=True).clamp(min=1)
    image = Image.new("RGB", (margin + classes * cell + 8, margin + classes * cell + 8), "white")
    draw = ImageDraw.Draw(image)
    font = ImageFont.load_default(12)
    draw.text((8, 4), f"{title}: % of each true class (rows) by prediction (columns)", "black", font)
    step = max(1, 20 // cell)
    for row in range(classes):
        if row % step == 0:
            draw.text((margin - 6, margin + (row + 0.5) * cell), str(row), "black", font, anchor="rm")
            draw.text((margin + (row + 0.5) * cell, margin - 6), str(row), "black", font, anchor="mb")
        for column in range(classes):
            share = float(shares[row, column])
            left, top = margin + column * cell, margin + row * cell
            shade = (round(255 - 215 * share), round(255 - 145 * share), round(255 - 75 * share))
            draw.rectangle((left, top, left + cell - 1, top + cell - 1), fill=shade)
            if cell >= 24 and share >= 0.005:
                draw.text(
                    (left + cell / 2, top + cell / 2),
                    f"{100 * share:.0f}",
                    "white" if share > 0.6 else "black",
                    font,
                    anchor="mm",
                )
    return pil_to_tensor(image)
