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

from bdclean.checkpoint import write_whole
from bdclean.metrics import defense_effectiveness_rate

FIGURES = ("acc", "asr", "ra", "agreement")


def figures(results: list[Mapping[str, float]], names: tuple[str, ...] = FIGURES[:3]) -> dict[str, float | None]:
    """Pick a test's figures out of what Lightning answers: percent with two decimals, None where there is none."""
    merged = {key: value for result in results for key, value in result.items()}
    values = {name: float(merged.get(f"test/{name}", math.nan)) for name in names}
    return {name: round(value, 2) if math.isfinite(value) else None for name, value in values.items()}


def write_json(path: Path, report: Mapping[str, Any]) -> None:
    """Write a report whole or not at all."""
    _write(path, json.dumps(report, indent=2) + "\n")


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a table whole or not at all."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    _write(path, text.getvalue())


def _write(path: Path, text: str) -> None:
    write_whole(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def movements(matrix: Tensor) -> list[dict[str, float | None]]:
    """How far predictions moved, class by class.

    Args:
        matrix: (C, C) counts of images: rows the suspect's classes, columns the cleansed network's.

    Returns:
        For each class how many images the suspect and the cleansed network put into it, and how many of the suspect's
        stayed, in percent; None where it had none.
    """
    before, after, stayed = matrix.sum(1).tolist(), matrix.sum(0).tolist(), matrix.diagonal().tolist()
    return [
        {"class": number, "suspect": had, "cleansed": has, "kept": round(100 * same / had, 2) if had else None}
        for number, (had, has, same) in enumerate(zip(before, after, stayed, strict=True))
    ]


def write_html(
    path: Path,
    report: Mapping[str, Any],
    pictures: Sequence[tuple[str, Tensor]],
    history: Mapping[str, Sequence[tuple[int, float]]],
    description: str,
) -> None:
    """Write a report as one page that needs no other file, whole or not at all.

    Args:
        path: The file.
        report: What `write_json` writes.
        pictures: Title and image, (3, H, W) uint8 or in [0, 1].
        history: What was logged: name to epochs and values.
        description: What the method did, as a Markdown table.
    """
    # What a hostile file says is text here, never markup.
    environment = jinja2.Environment(loader=jinja2.PackageLoader("bdclean", "."), autoescape=True)
    rows = [line.strip("| ").split(" | ") for line in description.splitlines() if not line.startswith("|--")]
    page = environment.get_template("report.html.j2").render(
        r=report,
        figure=lambda value: "\u2013" if value is None else f"{value:.2f}",
        pictures=[(title, _png(picture)) for title, picture in pictures],
        curves=[_curve(name, values) for name, values in history.items()],
        description=rows,
        kind=_kind(report),
    )
    _write(path, page)


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
    lines = [table({"suspect": suspect, "cleansed": cleansed})]
    if None not in (suspect["acc"], suspect["asr"], cleansed["acc"], cleansed["asr"]):
        rate = defense_effectiveness_rate((suspect["acc"], suspect["asr"]), (cleansed["acc"], cleansed["asr"]))
        lines.append(f"DER {rate:.2f}")
    lines.append(
        f"{report['method']} on {report['unlabeled_images']} {_kind(report)} images took {report['seconds']} s on "
        f"{report['device']}. All figures in percent, agreement on {report['agreement_on']}."
    )
    if suspect["acc"] is None:
        lines += ["", _moved_most(report["classes"])]
    return "\n".join(lines)


def _kind(report: Mapping[str, Any]) -> str:
    """What was known of the images that the method had."""
    return "labelled" if report["options"].get("supervision") == "labels" else "unlabeled"


def _moved_most(classes: Sequence[Mapping[str, float | None]]) -> str:
    """The classes that kept fewest of the suspect's predictions, for users who have nothing else to go by."""
    rows = sorted((row for row in classes if row["kept"] is not None), key=lambda row: row["kept"] or 0.0)[:10]
    lines = ["Least of the suspect's predictions stayed in these classes:", "  class  suspect  cleansed  stayed"]
    lines += [f"{row['class']:>7}{row['suspect']:>9}{row['cleansed']:>10}{row['kept']:>8.2f}" for row in rows]
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
