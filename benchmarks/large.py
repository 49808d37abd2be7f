"""Time and memory of scanning and cleansing networks for large images, as whole commands. Not on Windows.

    python benchmarks/large.py [--archs resnet18 timm/tf_efficientnet_lite0] [--classes 10 1000] [--image_size 224]
        [--images DATA] [--commands scan cleanse] [--options ...]

The networks have random weights, so that only the times mean something: a scan of a trained network takes as many
steps, but for classes that it drops early. Images are photographs from DATA, or else drawn by the program.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from bdclean.networks import build_network

OUTPUTS = {"scan": "json", "cleanse": "pth"}
"""Suffix of the result of each command."""


def save(arch: str, classes: int, image_size: int, path: Path) -> None:
    """Save a network with random weights, the same in each run."""
    torch.manual_seed(0)
    torch.save(build_network(arch, classes, image_size=image_size).state_dict(), path)


def run(words: Sequence[str], folder: Path) -> tuple[float, int]:
    """Run bdclean in a folder.

    Returns:
        Seconds, and the peak memory of the process in MiB.

    Raises:
        SystemExit: If it fails, with its output.
    """
    log = folder / "log"
    started = time.perf_counter()
    with log.open("w", encoding="utf-8") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "bdclean", *words], cwd=folder, stdout=output, stderr=subprocess.STDOUT
        )
        # Unlike `Popen.wait`, this gives the memory of this process alone.
        _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(words)}:\n{log.read_text(encoding='utf-8')}")
    return time.perf_counter() - started, usage.ru_maxrss // 2**10


def rows(options: argparse.Namespace) -> Iterator[str]:
    """Lines of the table."""
    yield "| network | classes | command | all (s) | without start-up and files (s) | process | device (MiB) |"
    yield "|---|---|---|---|---|---|---|"
    for arch in options.archs:
        for classes in options.classes:
            for verb in options.commands:
                with tempfile.TemporaryDirectory() as name:
                    folder = Path(name)
                    save(arch, classes, options.image_size, folder / "suspect.pth")
                    words = ["--ckpt", "suspect.pth", "--model.arch", arch, "--model.num_classes", str(classes)]
                    words += ["--model.image_size", str(options.image_size), "--model.mean", "half"]
                    words += ["--data.unlabeled", options.images, "--output", f"result.{OUTPUTS[verb]}"]
                    seconds, memory = run([verb, *words, *options.options], folder)
                    found = json.loads((folder / "result.json").read_text(encoding="utf-8"))
                alone, device = found["seconds"], found.get("peak_memory") or ""
                yield f"| {arch} | {classes} | `{verb}` | {seconds:.1f} | {alone:.1f} | {memory} | {device} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--archs", nargs="*", default=["resnet18", "timm/tf_efficientnet_lite0"])
    parser.add_argument("--classes", nargs="*", type=int, default=[10, 1000])
    parser.add_argument("--image_size", type=int, default=224)
    parser.add_argument("--images", default="procedural", help="unlabeled images, as `--data.unlabeled`")
    parser.add_argument("--commands", nargs="*", default=list(OUTPUTS), choices=list(OUTPUTS))
    parser.add_argument(
        "--options", nargs=argparse.REMAINDER, default=[], help="options of the commands; must come last"
    )
    for line in rows(parser.parse_args()):
        print(line, flush=True)


if __name__ == "__main__":
    main()
