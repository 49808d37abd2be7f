"""Finding the files of a network in a folder. Only small JSON files inside the folder are read."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bdclean.errors import Given, InputError

CONFIG = "config.json"
PROCESSORS = ("preprocessor_config.json", "processor_config.json")
"""Files in which transformers stores the normalisation; the second since version 5."""
WEIGHTS = ("model.safetensors", "pytorch_model.bin")
"""Files of weights, the safe format first; large networks have several parts and an index instead."""
INDEX = ".index.json"
LARGEST_JSON = 2**23
"""Maximum bytes of a JSON file: the names of 21,000 classes take 1 MB, the index of the largest classifiers 100 kB."""
MAX_PARTS = 200
"""Maximum number of parts of the weights."""


@dataclass(frozen=True)
class Folder:
    """The files of a network.

    Attributes:
        path: The folder.
        config: Content of `config.json`.
        processor: Content of the processor's file; empty if there is none.
        weights: Files of weights, all inside the folder.
        copied: Files that a copy of the folder needs in addition to its weights.
    """

    path: Path
    config: dict[str, Any]
    processor: dict[str, Any]
    weights: tuple[Path, ...]
    copied: tuple[Path, ...]


def find(path: str, option: Given) -> Folder | None:
    """Find the files of a network.

    Args:
        path: A folder of transformers or timm, or its file of weights.
        option: The parameter that names the path, for messages.

    Returns:
        The files; None if the path is neither such a folder nor a file in one.

    Raises:
        InputError: If a file is missing, unreadable, or a link that leads out of the folder.
    """
    place, whole = Path(path), os.path.isdir(path)
    folder = place if whole else place.parent
    # Not by pathlib, which raises an error for impossible names.
    if not os.path.isfile(os.path.join(folder, CONFIG)) or not (whole or place.name in WEIGHTS):
        return None
    config = read_json(folder, CONFIG, option)
    if not {"model_type", "architecture"} & config.keys():
        if not whole:
            return None
        raise InputError(*option, f"its {CONFIG} has neither the model_type of transformers nor timm's architecture")
    weights = _weights(folder, option) if whole else (place,)
    kept = tuple(name for name in PROCESSORS if (folder / name).is_file())
    processor = read_json(folder, kept[0], option) if kept else {}
    for part in weights:
        _check_inside(folder, part, option)
    return Folder(folder, config, processor, weights, tuple(folder / name for name in (CONFIG, *kept)))


def read_json(folder: Path, name: str, option: Given) -> dict[str, Any]:
    """Read a JSON file of a folder.

    Raises:
        InputError: If the file is too large, outside the folder, or not a JSON object.
    """
    path = folder / name
    _check_inside(folder, path, option)
    try:
        if path.stat().st_size > LARGEST_JSON:
            raise InputError(*option, f"its {name} has more than {LARGEST_JSON} bytes")
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise InputError(*option, f"its {name} cannot be read ({reason})") from error
    if not isinstance(content, dict):
        raise InputError(*option, f"its {name} is not a JSON object")
    return content


def _weights(folder: Path, option: Given) -> tuple[Path, ...]:
    for name in WEIGHTS:
        if (folder / name).is_file():
            return (folder / name,)
        if (folder / f"{name}{INDEX}").is_file():
            return _parts(folder, name, option)
    raise InputError(*option, f"a folder with a {CONFIG}, but without {' or '.join(WEIGHTS)}")


def _parts(folder: Path, name: str, option: Given) -> tuple[Path, ...]:
    """The files in an index."""
    mapping = read_json(folder, f"{name}{INDEX}", option).get("weight_map")
    if not isinstance(mapping, dict) or not all(isinstance(part, str) for part in mapping.values()):
        raise InputError(*option, f"its {name}{INDEX} has no weight_map from tensors to files")
    parts = sorted({*mapping.values()})
    if not 0 < len(parts) <= MAX_PARTS:
        raise InputError(*option, f"its {name}{INDEX} names {len(parts)} files; at most {MAX_PARTS} are read")
    for part in parts:
        if Path(part).name != part or Path(part).suffix != Path(name).suffix or not (folder / part).is_file():
            raise InputError(*option, f"its {name}{INDEX} names {part[:80]!r}, which is not a weights file there")
    return tuple(folder / part for part in parts)


def _check_inside(folder: Path, path: Path, option: Given) -> None:
    """Refuse a link that leads out of the folder. In the cache of huggingface_hub, snapshots link to blobs."""
    root = folder.resolve()
    if root.parent.name == "snapshots":
        root = root.parent.parent
    if not path.resolve().is_relative_to(root):
        raise InputError(*option, f"its {path.name} is a link that leads out of the folder")
