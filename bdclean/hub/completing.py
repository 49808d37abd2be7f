"""Entries that the file of a processor leaves out: the defaults of its class in transformers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, cast

from bdclean.hub.resizes import UnknownPreparationError

SIZES = ("size", "crop_size")
"""Entries that earlier versions wrote as one number, of a meaning that the class knows."""


def completed(said: Mapping[str, Any], model_type: str) -> dict[str, Any]:
    """The entries of a processor, with the defaults of its class. Nothing of it is run on images.

    Args:
        said: The content of its file.
        model_type: Of the network beside it, which has a class of processors where the file names none.

    Raises:
        UnknownPreparationError: If its sizes are none.
    """
    inner = said.get("image_processor")
    said = inner if isinstance(inner, dict) else said
    name = said.get("image_processor_type") or said.get("feature_extractor_type") or _usual(model_type)
    made = _class(str(name).replace("FeatureExtractor", "ImageProcessor"))
    if made is None:
        return {"image_processor_type": name} | {key: value for key, value in said.items() if value is not None}
    sizes = {key: said[key] for key in SIZES if isinstance(said.get(key), (int, dict))}
    try:
        defaults = dict(made(**sizes).to_dict())
    except Exception as error:  # what a file says can make it fail in any way
        raise UnknownPreparationError(f"{str(sizes)[:80]} is no size ({' '.join(str(error).split())[:80]})") from error
    given = {key: value for key, value in said.items() if value is not None and key not in SIZES}
    return defaults | given | {"image_processor_type": made.__name__}


def _usual(model_type: str) -> str:
    """The name of the class of processors that a network of transformers has; empty if there is none."""
    from transformers.models.auto import image_processing_auto as auto

    names: Any = cast(Any, auto).IMAGE_PROCESSOR_MAPPING_NAMES.get(model_type) or ()
    found = [*names.values()] if isinstance(names, dict) else [names] if isinstance(names, str) else [*names]
    return next((name for name in found if name), "")


def _class(name: str) -> Any:
    """A class of processors of transformers by its name in any version; None if there is none."""
    from transformers.models.auto.image_processing_auto import get_image_processor_class_from_name

    plain = re.sub("(Fast|Pil)$", "", name)
    return get_image_processor_class_from_name(plain) if plain.endswith("ImageProcessor") else None
