"""Time and memory of whole commands by phase, including start-up; throughput.py prints them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
CONFIG = HERE.parent / "configs" / "badnet.yaml"
PHASES = ("imports", "suspect", "start", "training", "test", "end")
"""Importing all modules; evaluating the suspect; everything before the first step, including the scan of the suspect;
all steps; evaluating the result; the report with its scans, writing files and the end of the process."""


TIMED = ("--trainer.callbacks+=phases.Phases", "--trainer.enable_progress_bar=false")
"""Options with which a command writes the times of phases.py."""


def run(words: Sequence[str], folder: Path) -> tuple[float, float]:
    """Run Python with some arguments in a folder, which also gets the files of `TIMED`.

    Returns:
        Start and end, in seconds since 1970.

    Raises:
        SystemExit: If it fails, with its output.
    """
    paths = os.pathsep.join(filter(None, (str(HERE), os.environ.get("PYTHONPATH"))))
    environment = os.environ | {"PHASES": str(folder), "PYTHONPATH": paths}
    log = folder / "log"
    with log.open("w", encoding="utf-8") as output:
        started = time.time()
        process = subprocess.run(
            [sys.executable, *words], cwd=folder, env=environment, stdout=output, stderr=subprocess.STDOUT
        )
        ended = time.time()
    if process.returncode:
        raise SystemExit(f"{' '.join(words)}:\n{log.read_text(encoding='utf-8')}")
    return started, ended


def imports(folder: Path) -> float:
    """Seconds to import torch and lightning, which every command needs."""
    started, ended = run(["-c", "import torch, lightning.pytorch"], folder)
    return ended - started


def command(verb: str, words: Sequence[str], folder: Path) -> tuple[dict[str, float], str, int | None]:
    """Run a bdclean command.

    Returns:
        Seconds of each phase, and peak memory of the process and of the device, in MiB.
    """
    started, ended = run(["-m", "bdclean", verb, *words, *TIMED], folder)
    content: dict[str, Any] = json.loads((folder / "0.json").read_text(encoding="utf-8"))
    times = content["times"]
    ends = {"imports": times["imported"]}
    if "suspect tested" in times:
        ends["suspect"] = times["suspect tested"]
    ends |= {"start": times["trains"], "training": times["trained"], "test": times["tested"], "end": ended}
    seconds, before = {}, started
    for phase, end in ends.items():
        seconds[phase], before = end - before, end
    return seconds, (folder / "peak").read_text(encoding="utf-8"), content["device_memory"]


def rows(archs: Sequence[str], options: Sequence[str]) -> Iterator[str]:
    """Lines of a table of `fit` and of `cleanse` on its suspect.

    Args:
        archs: Networks, each trained on the embedded images with BadNets.
        options: Options of both commands.
    """
    yield f"| network | command | {' | '.join(PHASES)} | all (s) | process | device (MiB) | ACC | ASR |"
    yield "|" + "---|" * (len(PHASES) + 7)
    for arch in archs:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            given = {
                "fit": ["--config", str(CONFIG), "--model.arch", arch, *options],
                "cleanse": ["--ckpt", "suspect.ckpt", *options],
            }
            measured = {verb: command(verb, words, folder) for verb, words in given.items()}
            report = json.loads((folder / "cleansed.json").read_text(encoding="utf-8"))
            yield f"| | importing torch and lightning | {imports(folder):.1f} |" + " |" * (len(PHASES) + 4)
        for (verb, (seconds, memory, device)), figures in zip(
            measured.items(), (report["suspect"], report["cleansed"]), strict=True
        ):
            shown = " | ".join(f"{seconds[phase]:.1f}" if phase in seconds else "" for phase in PHASES)
            yield (
                f"| {arch} | `{verb}` | {shown} | {sum(seconds.values()):.1f} | {memory} | {device or ''} | "
                f"{figures['acc']:.2f} | {figures['asr']:.2f} |"
            )
