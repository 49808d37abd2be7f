"""Everything that was not measured yet for want of a GPU, in one command.

    python benchmarks/gpu.py [--folder gpu] [--only NAME ...]

Each step writes its table to FOLDER/NAME.md and its messages to FOLDER/NAME.log. A step whose table exists is not run
again, so that the command can be interrupted and repeated; a step that fails does not stop the others. FOLDER/index.md
has all tables, with the machine and the versions. The grid of CIFAR-10, which torchvision downloads into data/, takes
hours; it resumes where it stopped. All other steps take minutes.
"""

from __future__ import annotations

import argparse
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

import bdclean

HERE = Path(__file__).resolve().parent
CONFIGS = HERE.parent / "configs"


def steps(folder: Path) -> Mapping[str, Sequence[str]]:
    """Arguments of Python for each step, the fastest first."""
    gpus = torch.cuda.device_count()
    found = {
        "tests": ["-m", "pytest", "-q", str(HERE.parent / "tests" / "test_cuda.py")],
        "throughput": [str(HERE / "throughput.py"), "--commands", "small_cnn", "resnet18"],
        "compiled": [str(HERE / "compiled.py"), "--archs", "resnet18", "resnet50"],
        "large": [str(HERE / "large.py"), "--archs", "resnet18", "resnet50", "vit_b_16"],
        "scaling": [str(HERE / "scaling.py"), "--arch", "resnet18", "--processes", str(gpus)],
        "cifar10_resnet18": [
            *("-m", "bdclean", "benchmark", "--jobs", str(gpus)),
            *("--config", str(CONFIGS / "benchmark" / "cifar10_resnet18.yaml")),
            *("--folder", str(folder.resolve() / "cifar10_resnet18")),
        ],
    }
    if gpus < 2:
        del found["scaling"]
    return found


def run(name: str, words: Sequence[str], folder: Path) -> None:
    """Run a step, and write its table if it succeeds."""
    table, log = folder / f"{name}.md", folder / f"{name}.log"
    if table.exists():
        print(f"{name}: done before", flush=True)
        return
    print(f"{name}: {' '.join(words)}", flush=True)
    with log.open("w", encoding="utf-8") as messages:
        process = subprocess.run(
            [sys.executable, *words], cwd=HERE.parent, stdout=subprocess.PIPE, stderr=messages, encoding="utf-8"
        )
    if process.returncode:
        print(f"{name}: failed with exit code {process.returncode}, see {log}", flush=True)
        with log.open("a", encoding="utf-8") as messages:
            messages.write(process.stdout)
    else:
        table.write_text(process.stdout, encoding="utf-8")


def main() -> None:
    """Run all steps."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", default="gpu")
    parser.add_argument("--only", nargs="*", default=[], metavar="NAME", help="steps to run; by default all")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("gpu.py: no GPU that PyTorch can use")
    folder = Path(options.folder)
    folder.mkdir(parents=True, exist_ok=True)
    known = steps(folder)
    if unknown := sorted({*options.only} - {*known}):
        sys.exit(f"gpu.py: --only {' '.join(unknown)}: no such step; there are {', '.join(known)}")
    for name in options.only or known:
        run(name, known[name], folder)
    gpu = torch.cuda.get_device_name()
    versions = f"bdclean {bdclean.__version__}, PyTorch {torch.__version__}, Python {platform.python_version()}"
    parts = [f"# {torch.cuda.device_count()} x {gpu}\n\n{versions}\n"]
    for name, words in known.items():
        if (table := folder / f"{name}.md").exists():
            parts.append(f"## {name}\n\n`python {' '.join(words)}`\n\n{table.read_text(encoding='utf-8')}")
    (folder / "index.md").write_text("\n".join(parts), encoding="utf-8")
    print(f"Wrote {folder / 'index.md'}")


if __name__ == "__main__":
    main()
