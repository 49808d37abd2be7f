"""Log the result of a task to TensorBoard."""

from __future__ import annotations

from bdclean import escaped
from bdclean.data import PoisonDataModule
from bdclean.engine.trainer import Trainer
from bdclean.modules import Classifier
from bdclean.reporting import tensorboard
from bdclean.reporting.measures import Figures
from bdclean.reporting.sections import Page


def log(trainer: Trainer, page: Page, model: Classifier, datamodule: PoisonDataModule, figures: Figures) -> None:
    """Log a report, and the figures with the options that they depend on.

    Args:
        trainer: The Trainer with the loggers.
        page: The report.
        model: The network that was trained.
        datamodule: The images.
        figures: Figures of the network.
    """
    images = dict(datamodule.hparams)
    plain = {f"attack/{key}": value for key, value in images.pop("attack_options").items()}
    plain |= {f"data/{key}": value for key, value in images.items()}
    plain |= {f"data/{key}": getattr(datamodule, key) for key in ("batch_size", "num_unlabeled")}
    plain |= {f"model/{key}": value for key, value in (dict(model.hparams) | model.options()).items()}
    plain |= {"trainer/max_epochs": trainer.max_epochs, "module": type(model).__name__}
    if datamodule.unlabeled is not None:
        plain["data/unlabeled"] = datamodule.unlabeled.name
    options = {key: escaped(str(value)) for key, value in plain.items()}
    # The test has logged these scalars, so that the figures are not logged once more.
    metrics = [f"test/{name}" for name, value in figures.percents().items() if value is not None]
    for logger in trainer.tensorboards:
        tensorboard.log(logger.experiment, page, trainer.global_step)
        tensorboard.log_hparams(logger.experiment, options, metrics)
        logger.log_hyperparams(options, {})
        logger.save()
