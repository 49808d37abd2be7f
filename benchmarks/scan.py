"""Measure how often `bdclean scan` is right on checkpoints of `bdclean fit`, which record their attack.

    python benchmarks/scan.py --results scans.csv --data.num_unlabeled 2500 -- FOLDER_OR_CKPT ...

Options before `--` are passed to every `bdclean scan`. Each checkpoint that is not in the file adds a row, so that a
run can be interrupted; the table of all rows is printed at the end.
"""

from __future__ import annotations

import csv
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from bdclean.checkpoint import read
from bdclean.cli.main import main as bdclean
from bdclean.scanning import ALPHA

COLUMNS = ["checkpoint", "network", "source", "attack", "target", "p_value", "class", "by", "seconds"]
NONE = ""


def scan(path: Path, options: Sequence[str]) -> list[object]:
    """Scan a checkpoint, and return its row."""
    suspect = read(str(path))
    attack = suspect.data.get("attack_options", {})
    poisoned = suspect.data.get("attack") is not None and attack.get("poison_rate", 0) > 0
    target = NONE if not poisoned else attack["target_class"] if attack.get("label_mode") != "all-to-all" else "all"
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "scan.json"
        # These suspects are trusted, so that their images may be read.
        images = ["--data.source", str(suspect.data["source"])]
        bdclean(["scan", "--ckpt", str(path), "--output", str(output), "--trainer.logger", "false", *images, *options])
        found = json.loads(output.read_text(encoding="utf-8"))
    by = min(found["detectors"], key=lambda one: one["p_value"])["detector"]
    source = Path(str(suspect.data.get("source"))).stem
    name = suspect.data["attack"] if poisoned else NONE
    return [
        str(path), suspect.model["arch"], source, name, target, found["p_value"], found["class"], by, found["seconds"]
    ]  # fmt: skip


def table(rows: Sequence[dict[str, str]]) -> str:
    """All rows and a summary, as Markdown."""
    lines = ["| network | source | attack | target | p | class | by | seconds |", "|" + "---|" * 8]
    for row in sorted(rows, key=lambda row: (not row["attack"], row["source"], row["network"], row["attack"])):
        found = float(row["p_value"]) <= ALPHA
        lines.append(
            f"| {row['network']} | {row['source']} | {row['attack'] or '(clean)'} | {row['target']} | "
            f"{float(row['p_value']):.2g} | {row['class'] if found else '-'} | {row['by'] if found else ''} | "
            f"{float(row['seconds']):.0f} |"
        )
    backdoored, clean = ([row for row in rows if bool(row["attack"]) == kind] for kind in (True, False))
    found = [row for row in backdoored if float(row["p_value"]) <= ALPHA]
    right = sum(row["class"] == row["target"] for row in found)
    accused = sum(float(row["p_value"]) <= ALPHA for row in clean)
    lines += [
        "",
        f"found {len(found)} of {len(backdoored)}, the right class {right} times; "
        f"false alarms {accused} of {len(clean)} clean networks",
    ]
    return "\n".join(lines)


def main() -> None:
    """Scan the missing checkpoints, and print the table."""
    words = sys.argv[1:]
    if len(words) < 2 or words[0] != "--results" or "--" not in words:
        raise SystemExit(__doc__)
    results, cut = Path(words[1]), words.index("--")
    options, places = words[2:cut], [Path(word) for word in words[cut + 1 :]]
    rows = list(csv.DictReader(results.open(encoding="utf-8"))) if results.exists() else []
    done = {row["checkpoint"] for row in rows}
    if not results.exists():
        results.write_text(",".join(COLUMNS) + "\n", encoding="utf-8")
    for place in places:
        for path in sorted(place.rglob("*.ckpt")) if place.is_dir() else [place]:
            if str(path) not in done:
                with results.open("a", encoding="utf-8", newline="") as file:
                    csv.writer(file).writerow(scan(path, options))
    print(table(list(csv.DictReader(results.open(encoding="utf-8")))))


if __name__ == "__main__":
    main()
