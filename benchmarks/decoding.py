"""Speed and memory of decoding a folder of very many images, compared with training steps. Linux only.

    python benchmarks/decoding.py [--images 100000] [--side 256] [--image_size 224] [--arch resnet18]

Fills a folder with JPEG files, and reads one epoch of them like a cleansing: one pass to find unreadable files, then
worker processes decode, crop and flip the images, and keep none. Prints images per second and the memory of this
process and its workers (proportional shares), and at the end the images per second of a training step, which shows
whether decoding or the network limits training.
"""

from __future__ import annotations

import argparse
import io
import multiprocessing
import os
import tempfile
import time
import warnings
from pathlib import Path

import torch
from phases import share_of_memory
from PIL import Image
from throughput import now
from tqdm import tqdm

from bdclean.data import PoisonDataModule
from bdclean.data.procedural import draw_procedural
from bdclean.engine.process import keep_memory
from bdclean.engine.quiet import quieten
from bdclean.modules import AttackModule

DISTINCT = 64
"""Number of different images; the other files are copies."""
PARTS = 10


def fill(folder: Path, images: int, side: int) -> int:
    """Write `images` files, and return their total size in bytes."""
    contents = []
    for pixels in draw_procedural(min(images, DISTINCT), side, 0):
        buffer = io.BytesIO()
        Image.fromarray(pixels.numpy()).save(buffer, "JPEG", quality=90)
        contents.append(buffer.getvalue())
    for number in tqdm(range(images), "Writing files", disable=None):
        (folder / f"{number:07}.jpg").write_bytes(contents[number % len(contents)])
    return sum(len(contents[number % len(contents)]) for number in range(images))


def memory() -> int:
    """Memory of this process and its child processes, in MiB."""
    pids = [os.getpid(), *(child.pid for child in multiprocessing.active_children() if child.pid)]
    return sum(share_of_memory(pid) or 0 for pid in pids)


def epoch(data: PoisonDataModule, images: int) -> float:
    """Read all images once.

    Returns:
        Images per second.
    """
    print("| images | images/s | MiB |\n|---|---|---|")
    seen, since, started = 0, 0, time.perf_counter()
    begun = started
    for batch in data.train_dataloader():
        seen += len(batch.images)
        if seen - since >= images / PARTS or seen == images:
            ended = time.perf_counter()
            print(f"| {seen} | {(seen - since) / (ended - begun):.0f} | {memory()} |", flush=True)
            since, begun = seen, ended
    return seen / (time.perf_counter() - started)


def steps(arch: str, image_size: int, batch_size: int) -> float:
    """Images per second in bare training steps of a network."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network = AttackModule(arch, image_size=image_size).network.to(device, memory_format=torch.channels_last)
    images = torch.rand(batch_size, 3, image_size, image_size, device=device).to(memory_format=torch.channels_last)
    times = []
    for _ in range(4):
        started = now(device)
        torch.autograd.backward(network(images).square().mean())
        times.append(now(device) - started)
    return batch_size / min(times[1:])


def main() -> None:
    """Print the table and the conclusion."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--side", type=int, default=256, help="side of the files' images, in pixels")
    parser.add_argument("--image_size", type=int, default=224, help="side of the network's images, in pixels")
    parser.add_argument("--arch", default="resnet18")
    parser.add_argument("--num_workers", type=int, default=None)
    options = parser.parse_args()
    quieten()
    warnings.filterwarnings("ignore")
    with tempfile.TemporaryDirectory() as name:
        size = fill(Path(name), options.images, options.side)
        print(f"{options.images} files, {size / 2**20:.0f} MiB; {memory()} MiB in memory before reading\n")
        data = PoisonDataModule(
            None,
            unlabeled=name,
            num_unlabeled=options.images,
            num_agreement=1,
            image_size=options.image_size,
            in_memory=False,
            num_workers=options.num_workers,
        )
        started = time.perf_counter()
        defence = data.defence(labels=False, choosing=False)
        print(f"checked in {time.perf_counter() - started:.0f} s\n")
        read = epoch(defence, defence.trained_count)
    trained = steps(options.arch, options.image_size, data.batch_size)
    bound = "decoding" if read < trained else "the network"
    print(f"\ndecoding {read:.0f} images/s, steps of {options.arch} {trained:.0f} images/s: {bound} bounds training")


if __name__ == "__main__":
    keep_memory()
    main()
