"""The files of a cleansing: the network, in the suspect's file format, and its reports."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from bdclean import checkpoint, earlier, outputs
from bdclean.cleansing import Cleanser
from bdclean.engine.trainer import Trainer
from bdclean.errors import Given, InputError
from bdclean.modules import Classifier
from bdclean.networks import frozen, plain
from bdclean.reporting import html
from bdclean.reporting.cleansing import page
from bdclean.reporting.files import write_json
from bdclean.reporting.parts import Paths
from bdclean.reporting.results import Cleansing


def default_output(model: Classifier) -> str:
    """The default path of a cleansed network: a folder if the suspect is one, else with the suspect's suffix."""
    if model.origin is not None and model.origin.folder is not None and Path(model.origin.path).is_dir():
        return "cleansed"
    suffix = Path(model.origin.path).suffix if model.origin else ".ckpt"
    return f"cleansed{suffix if suffix in outputs.SUFFIXES['cleanse'] else '.pt'}"


@dataclass(frozen=True)
class CleansedFiles:
    """The files of a cleansing, checked to be writable.

    Attributes:
        files: The network's file, and the reports beside it as JSON and HTML.
        paths: The paths that the reports show.
    """

    files: outputs.Outputs
    paths: Paths

    @classmethod
    def plan(cls, model: Classifier, output: str, overwrite: bool) -> CleansedFiles:
        """Choose and check the files of a cleansing.

        Args:
            model: The suspect.
            output: Path of the cleansed network.
            overwrite: Whether to replace files that are not results of cleansing the same suspect.

        Raises:
            InputError: If a file cannot be written, or would be replaced without `overwrite`.
        """
        outputs.check_name("cleanse", output)
        checkpoint.check(Path(output), model.origin, Given("output", output))
        size = outputs.size_of(model.state_dict())
        files = outputs.plan(output, outputs.REPORTS, size, checkpoint.is_folder(Path(output)))
        suspect = None if model.origin is None else model.origin.path
        if suspect is not None and files.result.exists() and files.result.samefile(suspect):
            raise InputError("output", output, "that is the suspect itself")
        origin = earlier.origin(files.result, suspect)
        earlier.refuse_others(files, overwrite, lambda path: earlier.cleansed_alike(path, files.result, origin, model))
        return cls(files, Paths(suspect, origin, output))

    def save(self, trainer: Trainer, cleanser: Cleanser, result: Cleansing, image_size: int) -> None:
        """Write the network, as a bdclean checkpoint or in the suspect's format, and the JSON report so far."""
        if trainer.is_global_zero:
            self.files.forget_reports()
        target, origin = self.files.result, cleanser.origin
        if target.suffix == ".ckpt" and (origin is None or origin.own or not origin.path.endswith(".ckpt")):
            # Every process calls this: sharded strategies gather the weights from all of them.
            trainer.save_checkpoint(target, weights_only=True)
        elif trainer.is_global_zero:
            image = cleanser.normalize(torch.zeros(1, 3, image_size, image_size, device=cleanser.device)).cpu()
            checkpoint.write(target, plain(frozen(cleanser.network)).cpu(), image, origin, cleanser.prefix)
        if trainer.is_global_zero:
            write_json(self.files.reports[0], result.to_json())

    def report(self, result: Cleansing) -> None:
        """Write the reports."""
        write_json(self.files.reports[0], result.to_json())
        html.write(self.files.reports[1], page(result))
