"""Short names of the classes that options can name."""

from __future__ import annotations

from lightning.pytorch import callbacks, loggers

from bdclean import attacks, cleansing
from bdclean.benchmark import engines
from bdclean.filtering import SCORES
from bdclean.scanning import DETECTORS

ATTACKS = [*attacks.ATTACKS]
METHODS = [name for name in cleansing.__all__ if name != "Cleanser"]
CLASSES = {
    "data.attack": ATTACKS,
    "method": METHODS,
    "engine": [name for name in engines.__all__ if name != "Engine"],
    "detector": [kind.__name__ for kind in DETECTORS],
    "score": [kind.__name__ for kind in SCORES],
    "trainer.logger": [name for name in loggers.__all__ if name not in ("Logger", "LitLogger")],
    "trainer.callbacks": [name for name in callbacks.__all__ if name != "Callback"],
}
"""Short names of the available classes, by the option that names a class."""
_OF_IMAGES = {"model.num_classes": "data.num_classes", "model.image_size": "data.image_size"}
LINKS = {"fit": _OF_IMAGES, "poison": _OF_IMAGES}
"""Options of each subcommand that are set by a property of the images."""
