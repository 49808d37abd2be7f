"""Classes that options name, by short names."""

from __future__ import annotations

from lightning.pytorch import callbacks, loggers

from bdclean import attacks, cleansing
from bdclean.scanning import DETECTORS

ATTACKS = [*attacks.ATTACKS]
METHODS = [name for name in cleansing.__all__ if name != "Cleanser"]
CLASSES = {
    "data.attack": ATTACKS,
    "method": METHODS,
    "detector": [kind.__name__ for kind in DETECTORS],
    "trainer.logger": [name for name in loggers.__all__ if name not in ("Logger", "LitLogger")],
    "trainer.callbacks": [name for name in callbacks.__all__ if name != "Callback"],
}
"""Options that name a class, and the classes that there are by short names."""
LINKS = {"fit": {"model.num_classes": "data.num_classes", "model.image_size": "data.image_size"}}
"""Options of each subcommand that the images decide, and what of them."""
