"""Train a backdoored network."""

from __future__ import annotations

from bdclean import checkpoint, earlier, escaped, outputs
from bdclean.data import PoisonDataModule
from bdclean.data.poisoned_sets import refuse_second_attack
from bdclean.engine.trainer import Trainer
from bdclean.errors import InputError
from bdclean.modules import Classifier
from bdclean.reporting import training
from bdclean.reporting.parts import Example
from bdclean.reporting.results import Training
from bdclean.suspects.surrogates import surrogate_of
from bdclean.tasks import announcing
from bdclean.tasks.evaluation import EXAMPLES, confusions, evaluate, examples
from bdclean.tasks.logs import log


def train(
    trainer: Trainer,
    model: Classifier,
    datamodule: PoisonDataModule,
    output: str = "suspect.ckpt",
    overwrite: bool = False,
    ckpt_path: str | None = None,
) -> Training:
    """Train a backdoored network, and write its checkpoint.

    Args:
        trainer: The Trainer.
        model: The network, an AttackModule.
        datamodule: Its images.
        output: File for the trained network.
        overwrite: Whether to replace a file that the same training did not write.
        ckpt_path: Checkpoint of an interrupted training to resume.

    Raises:
        InputError: If no step would be trained, the file cannot be written, or the checkpoint does not fit the network.
    """
    outputs.check_name("fit", output)
    if option := trainer.without_training:
        raise InputError(*option, "no training step, so the network would stay untrained")
    if datamodule.source is not None:
        refuse_second_attack(datamodule.source.poisoned, datamodule.poisoning, datamodule.source.option)
    surrogate = surrogate_of(model, datamodule.attack)
    files = outputs.plan(output, size=outputs.size_of(model.state_dict()))
    earlier.refuse_others(files, overwrite, lambda path: earlier.trained_alike(path, model, datamodule))
    if ckpt_path is not None:
        resumed = checkpoint.read(ckpt_path, "ckpt_path")
        model.load(resumed, "ckpt_path")
        if not resumed.resumable:
            raise InputError("ckpt_path", ckpt_path, "holds a network, but not the state of its training")
    trainer.begin(model)
    attack = datamodule.attack
    if attack is not None and attack.trains_trigger and trainer.forgets:
        raise InputError(
            "trainer.strategy",
            None,
            f"{type(attack).__name__} is trained with the network, in processes whose memory would be lost; use ddp",
        )
    with trainer.writing(files):
        if trainer.local_rank == 0:
            datamodule.prepare_data()
            announcing.announce(announcing.of_training(trainer, model, datamodule))
        datamodule.prepare_attack(*surrogate, trainer.device, trainer.local_rank == 0)
        trainer.train(model, datamodule, ckpt_path)
        trainer.check_trained()
        # With a forking strategy, only the forked processes set this attribute.
        trainer.datamodule = datamodule  # type: ignore[attr-defined]  # Lightning's attribute
        trainer.save_checkpoint(files.result, weights_only=True)
        figures = evaluate(trainer, model, datamodule)
        shown = list(examples(datamodule))
        if poisoned := datamodule.attacker.poisoned_examples(EXAMPLES):
            shown.append(Example("Training images", *poisoned))
        result = Training(escaped(output), figures, confusions(model, "suspect"), tuple(shown))
        log(trainer, training.page(result), model, datamodule, figures)
    return result
