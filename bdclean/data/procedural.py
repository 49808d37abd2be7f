"""Unlabeled images drawn by the program, on which a suspect can be distilled without any images of the user.

They show no objects. Statistics like those of photographs (edges of occluding surfaces, detail at every scale,
correlated channels) are enough to activate a classifier's features.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

Draw = Callable[[int, int, torch.Generator], Tensor]
"""From a number of images, their size and a generator to images (N, size, size, 3), about [0, 1]."""

PIXELS_PER_CHUNK = 2**19
"""Pixels to draw at once: up to about 150 MB of working memory, most of which fits the cache for small images."""

LEAF_COVER = 1.3
"""Total area of the leaves of one octave of radii, in areas of the image."""

PALETTE = 6
"""Maximum number of colours in an image of fractal noise."""


def _uniform(low: float, high: float, generator: torch.Generator, *shape: int) -> Tensor:
    return low + (high - low) * torch.rand(*shape, generator=generator)


def _to_rgb(luminance: Tensor, chroma: Tensor) -> Tensor:
    """Colours from the three independent directions of variation in photographs, in order of decreasing variance.

    Args:
        luminance: Brightness, about [0, 1] (later clipped); any shape (...).
        chroma: Blue to yellow and green to magenta, of about unit variance; (2, ...).

    Returns:
        Red, green and blue, (..., 3), about [0, 1].
    """
    blue_yellow, green_magenta = 0.15 * chroma[0], 0.06 * chroma[1]
    red, blue = luminance + green_magenta + blue_yellow, luminance + green_magenta - blue_yellow
    return torch.stack([red, luminance - 2 * green_magenta, blue], -1)


def _colours(count: int, per_image: int, generator: torch.Generator) -> Tensor:
    """Matching colours, (N, per_image, 3): brightness varies more than hue, around a tint of the image."""
    key, contrast = _uniform(0.3, 0.7, generator, count, 1), _uniform(0.6, 1.2, generator, count, 1)
    # Alternate bright and dark: otherwise neighbours in a short palette would often be similar, and the image flat.
    turns = 1 - 2 * (torch.arange(per_image) % 2)
    luminance = key + contrast * turns * _uniform(0.1, 0.5, generator, count, per_image)
    tint, hue = torch.randn(2, count, 1, generator=generator), torch.randn(2, count, per_image, generator=generator)
    return _to_rgb(luminance, _uniform(0, 1, generator, count, 1) * (tint + hue))


def _value_noise(count: int, fields: int, size: int, generator: torch.Generator) -> Tensor:
    """Sums of octaves of smooth random fields, (N, fields, size, size), each stretched to [-1, 1]."""
    octaves = int(math.log2(size))
    coarsest = torch.randint(0, max(1, octaves - 2), (count, fields, 1, 1), generator=generator)
    persistence = _uniform(0.3, 0.85, generator, count, fields, 1, 1)
    noise = torch.zeros(count, fields, size, size)
    for octave in range(octaves):
        cells = 2 ** (octave + 1) + 1
        position = torch.linspace(0, cells - 1, size)[:, None]
        spread = (1 - (position - torch.arange(cells)).abs()).clamp(min=0)
        # Smoothstep: neighbouring weights still sum to 1, and no creases show at the borders of cells.
        spread = spread.square() * (3 - 2 * spread)
        strength = persistence ** (octave - coarsest) * (octave >= coarsest)
        noise += spread @ (strength * torch.randn(count, fields, cells, cells, generator=generator)) @ spread.T
    low, high = noise.amin((-2, -1), keepdim=True), noise.amax((-2, -1), keepdim=True)
    return (2 * noise - low - high) / (high - low)


def _dead_leaves(count: int, size: int, generator: torch.Generator) -> Tensor:
    """Leaves that occlude each other, with radii of density r^-3: (N, size, size, 3), about [0, 1]."""
    largest = [size / 2**k for k in range(1, 6) if k == 1 or size / 2**k >= 2]
    # Each octave gets the same total area of leaves, including leaves that cross the border. Radii have density r^-3
    # inside an octave too, so a leaf's mean area is (2 pi ln 2 / 3) times the square of the octave's largest radius.
    area = 2 * math.pi * math.log(2) / 3
    numbers = [math.ceil(LEAF_COVER * (size + 2 * radius) ** 2 / (area * radius**2)) for radius in largest]
    # Each step has one octave, outline and finish for the whole batch, so that the painted window has one size.
    order = torch.tensor(largest).repeat_interleave(torch.tensor(numbers))
    order = order[torch.randperm(len(order), generator=generator)]
    outlines, finishes = torch.randint(0, 4, (2, len(order)), generator=generator).tolist()
    colours = _colours(count, len(order) + 1, generator).transpose(1, 2)
    texture = _value_noise(count, 1, size, generator).flatten(2)
    # Some images have only large leaves.
    finest = size * torch.exp2(_uniform(-6.5, -3.0, generator, count, 1, 1))
    # The last leaf covers the whole background.
    canvas = colours[:, :, -1:].repeat(1, 1, size**2)

    for step, (upper, outline, finish) in enumerate(zip(order.tolist(), outlines, finishes, strict=True)):
        radius = upper * (4 - 3 * _uniform(0, 1, generator, count, 1, 1)).rsqrt()
        turn, shape, period, strength = _uniform(0, 1, generator, 4, count, 1, 1)
        centre = _uniform(-upper, size + upper, generator, 2, count, 1)
        window = min(size, math.ceil(2 * upper) + 3)
        start = (centre - window / 2).round().clamp(0, size - window).long()
        row, column = start + torch.arange(window)
        y, x = (row - centre[0])[:, :, None], (column - centre[1])[:, None, :]
        cos, sin = (2 * math.pi * turn).cos(), (2 * math.pi * turn).sin()
        u, v = x * cos + y * sin, y * cos - x * sin

        # Distance to the outline in pixels, positive inside. Every outline fits in the disk of this radius.
        if outline == 0:
            angle = 0.4 + 0.4 * shape
            inside = torch.minimum(radius * angle.cos() - u.abs(), radius * angle.sin() - v.abs())
        elif outline == 1:
            inside = radius / 2 - torch.maximum(v.abs() * math.sqrt(0.75) + u / 2, -u)
        else:
            inside = radius - torch.hypot(u, v)
        cover = (inside + 0.5).clamp(0, 1).mul(radius > finest).view(count, 1, -1)

        pixels = (row[:, :, None] * size + column[:, None, :]).view(count, 1, -1)
        if finish == 0:
            shade = torch.zeros(1)
        elif finish == 1:
            shade = (u / radius).view(count, 1, -1)
        elif finish == 2:
            shade = (2 * math.pi * u / (3 + radius * period)).sin().view(count, 1, -1)
        else:
            shade = texture.gather(2, pixels)
        leaf = colours[:, :, step, None] + (0.4 * strength - 0.2) * shade
        pixels = pixels.expand(-1, 3, -1)
        canvas.scatter_(2, pixels, torch.lerp(canvas.gather(2, pixels), leaf, cover))
    return canvas.view(count, 3, size, size).permute(0, 2, 3, 1)


def _fractal_noise(count: int, size: int, generator: torch.Generator) -> Tensor:
    """Value noise, warped by other noise and coloured: (N, size, size, 3), about [0, 1]."""
    fields = _value_noise(count, 4, size, generator)
    # Warp half of the images. Rotate, stretch and crop all of them, to hide the lattice of the noise.
    bend = (0.6 * _uniform(-1, 1, generator, count, 1, 1, 1)).clamp(min=0)
    turn = _uniform(0, 2 * math.pi, generator, count)
    zoom = _uniform(0.35, 0.7, generator, 2, count)
    turned = torch.stack([zoom[0] * turn.cos(), -zoom[1] * turn.sin(), zoom[0] * turn.sin(), zoom[1] * turn.cos()], -1)
    affine = torch.cat([turned.view(count, 2, 2), _uniform(-0.3, 0.3, generator, count, 2, 1)], -1)
    grid = F.affine_grid(affine, [count, 1, size, size], align_corners=False)
    grid = grid + bend * fields[:, 1:3].permute(0, 2, 3, 1)
    height = F.grid_sample(fields[:, :1], grid, padding_mode="reflection", align_corners=False).view(count, -1)
    # Turn a third into ridged noise: the absolute value has creases where the sign changed.
    height = torch.where(_uniform(0, 1, generator, count, 1) < 1 / 3, height.abs() * 2 - 1, height)
    low, high = height.amin(1, keepdim=True), height.amax(1, keepdim=True)

    # Blend between neighbouring colours either smoothly, or within a narrow range, which makes areas with edges.
    steps = torch.randint(1, PALETTE, (count, 1), generator=generator)
    position = (height - low) / (high - low + 1e-6) * steps
    below = position.long().clamp(max=PALETTE - 2)
    sharpness = torch.exp2(_uniform(-1.5, 4.5, generator, count, 1)).clamp(min=1)
    threshold = _uniform(0.3, 0.7, generator, count, 1)
    part = ((position - below - threshold) * sharpness + threshold).clamp(0, 1)[:, :, None]
    colours, rows = _colours(count, PALETTE, generator), torch.arange(count)[:, None]
    images = torch.lerp(colours[rows, below], colours[rows, below + 1], part)
    grain = _uniform(0, 0.15, generator, count, 1, 1) * fields[:, 3].reshape(count, -1, 1)
    return (images + grain).view(count, size, size, 3)


def _random_phases(
    exponent: Tensor, anisotropy: Tensor, channels: int, size: int, generator: torch.Generator
) -> Tensor:
    """Fields with a given spectrum and random phases.

    Args:
        exponent: Amplitudes fall with frequency f as f^-exponent, averaged over directions; (N,).
        anisotropy: Adds x cos 2t + y sin 2t to the exponent in direction t; (N, 2) of (x, y).
        channels: Number of fields per image, with the same spectrum and different phases.
        size: Height and width, in pixels.
        generator: Generator of the phases.

    Returns:
        Fields of mean 0 and variance 1, (N, channels, size, size).
    """
    fy, fx = torch.fft.fftfreq(size, 1 / size)[:, None], torch.fft.rfftfreq(size, 1 / size)
    squared = fx.square() + fy.square()
    squared[0, 0] = 1  # the mean, dropped below
    along, across = anisotropy[:, :, None, None].unbind(1)
    slope = exponent[:, None, None] + along * (fx.square() - fy.square()) / squared + across * 2 * fx * fy / squared
    amplitude = squared ** (-slope / 2)
    amplitude[:, 0, 0] = 0
    # The phases of white noise are random, and have the symmetry of a real-valued image.
    white = torch.fft.rfft2(torch.randn(len(exponent), channels, size, size, generator=generator))
    fields = torch.fft.irfft2(white.sgn() * amplitude[:, None], s=(size, size))
    return fields / fields.square().mean((-2, -1), keepdim=True).sqrt()


def _natural_spectra(count: int, size: int, generator: torch.Generator) -> Tensor:
    """Random phases with spectra like those of natural images: (N, size, size, 3), mostly in [0, 1]."""
    exponent = _uniform(0.5, 3.5, generator, count)
    anisotropy = _uniform(-0.4, 0.4, generator, count, 2)
    fields = _random_phases(exponent, anisotropy, 3, size, generator).transpose(0, 1)
    brightness, contrast, saturation = _uniform(0, 1, generator, 3, count, 1, 1)
    fields = (0.1 + 0.25 * contrast) * fields
    tint = torch.randn(2, count, 1, 1, generator=generator)
    return _to_rgb(0.3 + 0.4 * brightness + fields[0], saturation * (0.8 * tint + 5 * fields[1:]))


KINDS: tuple[Draw, ...] = (_dead_leaves, _fractal_noise, _natural_spectra)
"""What an equal share of images each is drawn by."""


def draw_procedural(
    count: int, size: int, seed: int, kinds: Sequence[Draw] = KINDS, pixels: int = PIXELS_PER_CHUNK
) -> Tensor:
    """Draw unlabelled images: a third each dead leaves, fractal noise and noise with the spectra of natural images.

    After Baradad, Wulff, Wang, Isola and Torralba, "Learning to See by Looking at Noise", NeurIPS 2021; dead leaves
    after Lee, Mumford and Huang, "Occlusion Models for Natural Images", IJCV 2001.

    Args:
        count: Number of images.
        size: Height and width of an image, in pixels, from 8 to 512.
        seed: Seed; the same seed, count and size give the same images.
        kinds: Functions that draw images, an equal share each.
        pixels: Number of pixels to draw at once.

    Returns:
        Images in random order, (count, size, size, 3) uint8.
    """
    generator = torch.Generator().manual_seed(seed)
    images = torch.empty(count, size, size, 3, dtype=torch.uint8)
    order = torch.randperm(count, generator=generator)
    chunk = max(1, pixels // size**2)
    threads = torch.get_num_threads()
    # A single thread: threads would mostly wait for each other in thousands of small operations, ten times as long if
    # another program uses a core, and rounding in matrix products and FFTs would depend on their number.
    torch.set_num_threads(1)
    try:
        for kind, draw in enumerate(kinds):
            members = order[kind :: len(kinds)]
            for start in range(0, len(members), chunk):
                piece = members[start : start + chunk]
                images[piece] = draw(len(piece), size, generator).clamp(0, 1).mul(255).round().to(torch.uint8)
    finally:
        torch.set_num_threads(threads)
    return images
