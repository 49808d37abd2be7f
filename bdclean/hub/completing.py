"""Completing the file of a processor with the defaults of its class in transformers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, cast

from bdclean.hub.resizes import UnknownPreparationError

SIZES = ("size", "crop_size")
"""Entries that earlier versions wrote as one number, which the class interprets."""


def completed(config: Mapping[str, Any], model_type: str) -> dict[str, Any]:
    """The entries of a processor, with the defaults of its class. The processor is not run.

    Args:
        config: Content of its file.
        model_type: `model_type` of the network, which determines the class of the processor if the file does not.

    Raises:
        UnknownPreparationError: If its sizes are invalid.
    """
    inner = config.get("image_processor")
    config = inner if isinstance(inner, dict) else config
    name = config.get("image_processor_type") or config.get("feature_extractor_type") or _default_class(model_type)
    processor = _class(str(name).replace("FeatureExtractor", "ImageProcessor"))
    if processor is None:
        return {"image_processor_type": name} | {key: value for key, value in config.items() if value is not None}
    sizes = {key: config[key] for key in SIZES if isinstance(config.get(key), (int, dict))}
    try:
        defaults = dict(processor(**sizes).to_dict())
    except Exception as error:  # the entries of a file can raise any error
        raise UnknownPreparationError(
            f"{str(sizes)[:80]} is not a size ({' '.join(str(error).split())[:80]})"
        ) from error
    given = {key: value for key, value in config.items() if value is not None and key not in SIZES}
    return defaults | given | {"image_processor_type": processor.__name__}


def _default_class(model_type: str) -> str:
    """The name of the default processor class for a `model_type`; empty if there is none."""
    from transformers.models.auto import image_processing_auto as auto

    names: Any = cast(Any, auto).IMAGE_PROCESSOR_MAPPING_NAMES.get(model_type) or ()
    found = [*names.values()] if isinstance(names, dict) else [names] if isinstance(names, str) else [*names]
    return next((name for name in found if name), "")


def _class(name: str) -> Any:
    """A processor class of transformers, by its name in any version; None if there is none."""
    from transformers.models.auto.image_processing_auto import get_image_processor_class_from_name

    plain = re.sub("(Fast|Pil)$", "", name)
    return get_image_processor_class_from_name(plain) if plain.endswith("ImageProcessor") else None
