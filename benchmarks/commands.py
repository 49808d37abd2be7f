"""What whole commands take from the shell, phase by phase, start-up included: see throughput.py, which prints it."""

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
"""Until all modules are imported; the suspect's figures; until the first step, with the scan of a suspect; all steps;
the result's figures; the report with its scans, writing, the end of the process."""


CALLED = ("--trainer.callbacks+=phases.Phases", "--trainer.enable_progress_bar=false")
"""Has a command of ours write down what phases.py says."""


def run(words: Sequence[str], folder: Path) -> tuple[float, float]:
    """Run Python with some words, in a folder, where what `CALLED` asks for is written, too.

    Returns:
        When it was started and when it had ended, in seconds since 1970.

    Raises:
        SystemExit: If it fails, with what it printed.
    """
    paths = os.pathsep.join(filter(None, (str(HERE), os.environ.get("PYTHONPATH"))))
    environment = os.environ | {"PHASES": str(folder), "PYTHONPATH": paths}
    log = folder / "log"
    with log.open("w", encoding="utf-8") as output:
        started = time.time()
        ended_with = subprocess.run(
            [sys.executable, *words], cwd=folder, env=environment, stdout=output, stderr=subprocess.STDOUT
        )
        ended = time.time()
    if ended_with.returncode:
        raise SystemExit(f"{' '.join(words)}:\n{log.read_text(encoding='utf-8')}")
    return started, ended


def imports(folder: Path) -> float:
    """Seconds until Python has imported torch and lightning, which no command of ours can do without."""
    started, ended = run(["-c", "import torch, lightning.pytorch"], folder)
    return ended - started


def command(verb: str, words: Sequence[str], folder: Path) -> tuple[dict[str, float], str, int | None]:
    """Run a command of ours.

    Returns:
        Seconds of each phase, peak memory of the process and of the device, in MiB.
    """
    started, ended = run(["-m", "bdclean", verb, *words, *CALLED], folder)
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
    """A table of `fit` and, of what that gave, `cleanse`, line by line.

    Args:
        archs: Networks, each trained on the embedded images with BadNets.
        options: Of both commands.
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
