"""The command line: what there is to do, and with which options. What is done, the Trainer does."""

from __future__ import annotations

import argparse
import io
import logging
import os
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, get_args, get_type_hints

import torch
import yaml
from jsonargparse import ArgumentError
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningModule, callbacks, loggers
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback

from bdclean import InputError, __version__, attacks, cleansing, early, escaped, first_line, printable
from bdclean.attacks.badnets import PATTERNS
from bdclean.benchmark import benchmark
from bdclean.checkpoint import Checkpoint, read, write_text
from bdclean.data import PoisonDataModule
from bdclean.data.sources import open_source
from bdclean.data.sources.shapes import NAMES as EMBEDDED
from bdclean.exits import Exit, interruption
from bdclean.messages import no_class, readable
from bdclean.mistakes import blamed, mistake
from bdclean.models import is_own_class, largest_layer
from bdclean.modules import AttackModule, Classifier, Suspect, describe, identify
from bdclean.report import intervals, wide_intervals
from bdclean.scanning import DETECTORS
from bdclean.trainer import Trainer, quieten

ATTACKS = [*attacks.ATTACKS]
TRAINING = ("target_class", "label_mode", "poison_rate")
"""Options of attacks that do not change the trigger."""
METHODS = [name for name in cleansing.__all__ if name != "Cleanser"]
CLASSES = {
    "data.attack": ATTACKS,
    "method": METHODS,
    "detector": [kind.__name__ for kind in DETECTORS],
    "trainer.logger": [name for name in loggers.__all__ if name not in ("Logger", "LitLogger")],
    "trainer.callbacks": [name for name in callbacks.__all__ if name != "Callback"],
}
"""Options that name a class, and the classes that there are by short names."""
MOST_NUMBERS = 2**24
"""In a layer's output for one image, where a file says how large that is; eight images at once take 512 MiB then."""
LARGEST_SEED = 2**32 - 1
"""Of everything: numpy takes no larger one."""
FUNCTIONS = {"benchmark": benchmark}
"""Subcommands that have no network of their own."""
MODELS: dict[str, type[Classifier]] = {"fit": AttackModule}
"""What each subcommand makes of `--model`; a Suspect, read from a checkpoint, where nothing stands here."""


class LogConfig(SaveConfigCallback):
    """Writes the configuration of a run beside its logs, and into TensorBoard."""

    def save_config(self, trainer: Any, pl_module: LightningModule, stage: str) -> None:
        """Called by Lightning in one process, when training starts."""
        for logger in trainer.loggers:
            if isinstance(logger, loggers.TensorBoardLogger):
                text = escaped(self.parser.dump(self.config))
                os.makedirs(logger.log_dir, exist_ok=True)
                write_text(Path(logger.log_dir, "config.yaml"), text)
                logger.experiment.add_text("config", "".join(f"    {line}\n" for line in text.splitlines()))


class Notices(logging.Handler):
    """Prints what there is to say of images, and is no error, on standard output: the other one is for errors."""

    def emit(self, record: logging.LogRecord) -> None:
        """Called by `logging`."""
        print(record.getMessage())


NOTICES = Notices()


class CommandLine(LightningCLI):
    """Lightning's command line with the subcommands of this field, and suspects that are read with suspicion."""

    checkpoint: Checkpoint | None = None
    asked: Callable[[str], Any]
    """What the user says of an option, and not the checkpoint; None for nothing."""

    def __init__(self, *args: Any, **options: Any) -> None:
        known = {*self.subcommands(), *FUNCTIONS}
        self._asked = [word for word in options["args"] if word in known]
        super().__init__(*args, **options)

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Name of each subcommand, and which of its method's arguments are no options."""
        evaluation = {"model", "dataloaders", "datamodule", "ckpt_path", "weights_only"}
        return {
            "fit": {"model", "datamodule"},
            "validate": evaluation,
            "test": evaluation,
            "predict": {"model", "datamodule"},
            "cleanse": {"model", "datamodule"},
            "scan": {"model", "datamodule"},
        }

    def _add_subcommands(self, parser: LightningArgumentParser, **kwargs: Any) -> None:
        """Add those that have no network to Lightning's."""
        super()._add_subcommands(parser, **kwargs)
        registered = parser._subcommands_action
        assert registered is not None
        for name, function in FUNCTIONS.items():
            description = (function.__doc__ or "").partition("\n")[0]
            own = self.init_parser(description=description)
            own.add_function_arguments(function, skip={"command", "list"}, as_group=False)
            own.add_argument("--list", action="store_true", help="Only print the command of each cell.")
            registered.add_subcommand(name, own, help=description)
            self._subcommand_parsers[name] = own

    def init_parser(self, **kwargs: Any) -> LightningArgumentParser:
        """Parsers raise their errors, so that `main` can say them in one line."""
        # Whole names alone: `parse_arguments` has to know --ckpt before anything else is parsed.
        own = {"exit_on_error": False, "allow_abbrev": False, "default_env": True, "env_prefix": "BDCLEAN"}
        return super().init_parser(**own | kwargs)

    def _prepare_subcommand_parser(self, klass: type, subcommand: str, **kwargs: Any) -> LightningArgumentParser:
        if self._asked and subcommand not in self._asked:
            # Making the parsers of all takes longer than parsing.
            return self.init_parser(**kwargs)
        # Lightning has one model class for all subcommands; a suspect has no learning rate, so it shall not offer one.
        self._model_class = MODELS.get(subcommand, Suspect)
        parser = super()._prepare_subcommand_parser(klass, subcommand, **kwargs)
        parser.set_defaults(
            {
                "trainer.enable_model_summary": False,
                "trainer.logger": {
                    "class_path": "lightning.pytorch.loggers.TensorBoardLogger",
                    "init_args": {"save_dir": "runs", "name": subcommand, "default_hp_metric": False},
                },
            }
        )
        if subcommand == "fit":
            parser.set_defaults({"trainer.max_epochs": 10, "data.attack": {"class_path": "bdclean.attacks.BadNets"}})
            parser.link_arguments("data.num_classes", "model.num_classes", _classes, apply_on="instantiate")
            parser.link_arguments("data.image_size", "model.image_size", apply_on="instantiate")
        else:
            parser.add_argument("--ckpt", type=str, required=True, help="File of the network.")
        if subcommand == "cleanse":
            parser.set_defaults({"trainer.check_val_every_n_epoch": 3})
        return parser

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse: command line before configuration files, these before the checkpoint, that before the defaults."""
        subcommand = next(iter(self._asked), "")
        configurations = _configurations(args)
        self.asked = partial(_early, args, configurations)
        path = self.asked("ckpt") or os.environ.get(f"BDCLEAN_{subcommand.upper()}__CKPT")
        path = str(path) if path and subcommand not in ("", "fit", *FUNCTIONS) else None
        if path is not None:
            self.checkpoint = read(path)
            self._subcommand_parsers[subcommand].set_defaults(_defaults(self.checkpoint))
        if subcommand not in ("", *FUNCTIONS):
            for key, module, names in (("method", "cleansing", METHODS), ("data.attack", "attacks", ATTACKS)):
                classes = (f"{key}.class_path", key)
                asked = (value for name in classes if (value := self.asked(name)))
                self._forget_default(subcommand, key, f"bdclean.{module}", names, next(asked, None))
        for key in (*CLASSES, "trainer.plugins"):
            asked = _unquoted(self.asked(key))
            # Of an empty one the parser would make the default, silently.
            if asked == {} or (isinstance(asked, dict) and not isinstance(asked.get("class_path", ""), str)):
                raise InputError(no_class(key, str(asked.get("class_path", asked)), CLASSES.get(key, [])))
        # With the help of each option; other flags are taken as they are.
        arguments = [f"{word}=comments" if word == "--print_config" else word for word in args]
        self.config = parser.parse_args(arguments)
        if self.config.subcommand in FUNCTIONS:
            return
        for group in ("model", "data", "trainer"):
            if self.config[self.config.subcommand].get(group) is None:
                raise InputError(f"--{group} null: no such value; expected a mapping, {{name: value}}")
        given = self.config[self.config.subcommand].get("ckpt")
        if given != path:
            raise InputError(f"--ckpt {given}: belongs on the command line, or at the top of the --config file")

    def _forget_default(self, subcommand: str, key: str, module: str, names: Sequence[str], asked: Any) -> None:
        """Make the class that is asked for the default, if it is another: jsonargparse would hand on its options."""
        variable = f"BDCLEAN_{subcommand}__{key.replace('.', '__')}".upper()
        asked = _unquoted(asked or os.environ.get(variable))
        name = str(asked.get("class_path") if isinstance(asked, dict) else asked).rpartition(".")[2]
        parser = self._subcommand_parsers[subcommand]
        default = parser.get_defaults().get(key) if name in names else None
        if default is not None and default.class_path.rpartition(".")[2] != name:
            parser.set_defaults({key: {"class_path": f"{module}.{name}"}})

    def _parse_ckpt_path(self) -> None:
        """Lightning would merge what a checkpoint says into the configuration, unread: `parse_arguments` vets it."""

    def _set_seed(self) -> None:
        if self.subcommand not in FUNCTIONS:
            seed = self.config[self.subcommand].seed_everything
            if not 0 <= int(seed) <= LARGEST_SEED:
                raise InputError(f"--seed_everything {seed}: must be from 0 to {LARGEST_SEED}")
            super()._set_seed()

    def _run_subcommand(self, subcommand: str) -> None:
        if subcommand not in FUNCTIONS:
            super()._run_subcommand(subcommand)
            return
        options = dict(self.config[subcommand])
        del options["config"]
        FUNCTIONS[subcommand](**options, command=main)

    def instantiate_trainer(self, **kwargs: Any) -> Any:
        """Make the Trainer, from options that Lightning checks in a constructor of its own."""
        try:
            return super().instantiate_trainer(**kwargs)
        except InputError:
            raise
        except (ValueError, TypeError, ImportError, MisconfigurationException) as error:
            chosen, defaults = self.config[self.subcommand].trainer, self._parser(self.subcommand).get_defaults()
            asked = {name: value for name, value in vars(chosen).items() if value != defaults.get(f"trainer.{name}")}
            raise InputError(blamed(error, asked)) from error

    def instantiate_classes(self) -> None:
        """Make the objects, and fill them with what the checkpoint holds."""
        if self.subcommand in FUNCTIONS:
            return
        if self.checkpoint is None:
            super().instantiate_classes()
            self._say_outputs()
            self._describe_classes()
            return
        recognised = self._identify(self.checkpoint)
        suggestion = self._suggestion(self.checkpoint)
        super().instantiate_classes()
        self.model.load(self.checkpoint, "--ckpt")
        self._load_trigger(self.checkpoint)
        self.datamodule.triggered = triggered = self.checkpoint.triggered
        if triggered is not None and max(triggered.labels.max(), triggered.targets.max()) >= self.model.num_classes:
            raise InputError(
                f"--ckpt {self.checkpoint.path}: its triggered images have classes beyond the network's "
                f"{self.model.num_classes}"
            )
        if self.trainer.is_global_zero:
            outputs = self.model.outputs.describe()
            own = [f"{self.checkpoint.path}: {outputs}"] if outputs else []
            said = own if self.checkpoint.own else [describe(self.model, recognised)]
            said += [f"{self.checkpoint.path}: {note}" for note in self.checkpoint.notes]
            for line in [*said, *suggestion]:
                print(printable(line))
        self._describe_classes()

    def _say_outputs(self) -> None:
        """Say what the network outputs, if it is not logits."""
        if (outputs := self.model.outputs.describe()) and self.trainer.is_global_zero:
            print(printable(f"{self.model.hparams['arch']}: {outputs}"))

    def _identify(self, suspect: Checkpoint) -> bool:
        """Complete the options of the network, and say whether it was recognised."""
        model, data = self.config[self.config.subcommand].model, self.config[self.config.subcommand].data
        recognised = model.arch is None
        self._check_cost(suspect)
        names = [(data.source, "--data.source"), (data.unlabeled, "--data.unlabeled")]
        sizes = (open_source(name, data.root, option).image_size for name, option in names if isinstance(name, str))
        size = data.image_size or next((size for size in sizes if size is not None), None)
        for name, value in identify(suspect, dict(model), size).items():
            model[name] = value
        if data.image_size is None:
            data.image_size = model.image_size
        return recognised

    def _check_cost(self, suspect: Checkpoint) -> None:
        """Refuse a size of images that the checkpoint names, and that would fill the memory."""
        model = self.config[self.config.subcommand].model
        arch, size = model.arch, suspect.model.get("image_size")
        if size is None or arch is None or is_own_class(arch) or any(map(self.asked, ("model.image_size", "model"))):
            return
        numbers = largest_layer(arch, size, model.stem)
        if numbers > MOST_NUMBERS:
            raise InputError(
                f"--ckpt {suspect.path}: with images of {size} pixels, as it says, a layer of {arch} has {numbers} "
                f"numbers for each; give --model.image_size {size} if that is right"
            )

    def _suggestion(self, suspect: Checkpoint) -> list[str]:
        """Which images the checkpoint names, unless the user names some: a file decides nothing about what is read."""
        named, data = suspect.data.get("source"), self.config[self.config.subcommand].data
        if data.source is not None or named is None:
            return []
        option = f"--data.source {shlex.quote(named)}"
        if data.unlabeled is None:
            raise InputError(
                f"--data.source: needed, or --data.unlabeled; {suspect.path} says that it was trained on {named}, "
                f"which is not read unasked: {option}"
            )
        return [f"{suspect.path} says that it was trained on {named}: {option} measures ACC there"]

    def _describe_classes(self) -> None:
        """Say once in which order the classes of labelled images are."""
        source = self.datamodule.source
        if source is not None and self.trainer.is_global_zero:
            print(printable(source.describe()))

    def after_test(self) -> None:
        """Called by Lightning, which has printed the figures: say how far those of few images can be off."""
        lines = wide_intervals({"": intervals(self.model.counted())})
        if lines and self.trainer.is_global_zero:
            print("\n".join(lines))

    def before_test(self) -> None:
        """Called by Lightning: refuse to measure nothing."""
        if not self.datamodule.labelled and self.datamodule.triggered is None:
            raise InputError("--data.source: has no labelled test images, so there is nothing to measure")

    def before_validate(self) -> None:
        """Called by Lightning: as `before_test`."""
        if not self.datamodule.trainable:
            raise InputError("--data.source: has no labelled training images to hold a validation set out of")

    def _load_trigger(self, suspect: Checkpoint) -> None:
        """Take the checkpoint's trigger, unless another attack was asked for."""
        attack = self.datamodule.attack
        wanted, stored = self.datamodule.hparams["attack_options"], suspect.data.get("attack_options", {})
        changed = [key for key, value in stored.items() if _listed(wanted.get(key)) != _listed(value)]
        if attack is None:
            return
        name = type(attack).__name__
        changed = [key for key in changed if key not in TRAINING]
        if name != suspect.data.get("attack") or changed:
            if attack.learns:
                other = f"with another --data.attack.{changed[0]}" if changed else "there"
                raise InputError(
                    f"--data.attack {name}: its trigger is learned, and {suspect.path} has none made {other}"
                )
            picture = stored.get("trigger", PATTERNS[0])
            if picture not in PATTERNS and "trigger" not in changed and not self.asked("data.attack.trigger"):
                raise InputError(
                    f"--data.attack.trigger: needed, to make the trigger anew; {suspect.path} names {picture}, "
                    "which is not read unasked"
                )
            return
        try:
            attack.restore(suspect.trigger)
            # What networks make is tried on a small image: a file can ask for large ones.
            size = 32 if next(attack.parameters(), None) is not None else self.datamodule.image_size
            if attack.apply(torch.zeros(1, 3, size, size)).shape != (1, 3, size, size):
                raise RuntimeError("it changes the size of images")
        except Exception as error:  # the tensors are anybody's
            reason = first_line(error)
            raise InputError(f"--ckpt {suspect.path}: its trigger is no {name} ({reason})") from error


def _classes(number: int | None) -> int:
    """How many classes a network learns."""
    if number is None:
        raise InputError("--data.source null: has no classes to learn")
    return number


def _unquoted(value: Any) -> Any:
    """The value of an option, which on the command line can be a mapping in YAML."""
    if not isinstance(value, str) or not value.startswith("{"):
        return value
    try:
        return yaml.safe_load(value)
    except (yaml.YAMLError, ValueError, RecursionError):
        # The parser says what is wrong.
        return value


def _listed(value: Any) -> Any:
    """YAML knows no tuples."""
    return list(value) if isinstance(value, tuple) else value


def _configurations(arguments: Sequence[str]) -> list[Any]:
    """What the configuration files on the command line hold, the last and strongest first."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("-c", "--config", action="append", default=[], nargs="?")
    contents = []
    for path in reversed(parser.parse_known_args(list(arguments))[0].config):
        if path is not None and os.path.lexists(path):
            try:
                with open(path, encoding="utf-8") as file:
                    content = yaml.safe_load(file)
            except OSError as error:
                raise InputError(f"--config {path}: cannot be read ({error.strerror})") from error
            except (yaml.YAMLError, ValueError, RecursionError) as error:
                raise InputError(f"--config {path}: not readable as YAML ({error})") from error
            if not isinstance(content, dict):
                raise InputError(f"--config {path}: holds no options, name: value")
            contents.append(content)
        elif path is not None and path.startswith("{") and not isinstance(_unquoted(path), dict):
            raise InputError(f"--config {path}: not readable as YAML")
    return contents


def _early(arguments: Sequence[str], configurations: Sequence[Any], key: str) -> Any:
    """The value of an option before anything else is parsed, from the command line or a configuration file.

    The default of other options depends on it.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument(f"--{key}", dest="value", nargs="?")
    values = [parser.parse_known_args(list(arguments))[0].value]
    for content in configurations:
        for part in key.split("."):
            content = content.get(part) if isinstance(content, dict) else None
        values.append(content)
    return next((value for value in values if value is not None), None)


def _defaults(suspect: Checkpoint) -> dict[str, Any]:
    """What a checkpoint says, as defaults of the options."""
    data = {"source": None, "image_size": suspect.model.get("image_size"), **suspect.data}
    if data["source"] not in EMBEDDED:
        data["source"] = None
    model = dict(suspect.model)
    if is_own_class(str(model.get("arch"))):
        # A class that the user has not named is not run.
        del model["arch"]
    name, options = data.pop("attack", None), data.pop("attack_options", {})
    if name is not None:
        if name not in ATTACKS:
            raise InputError(f"--ckpt {suspect.path}: made with the attack {name}, which this version does not know")
        _check_options(name, options, f"--ckpt {suspect.path}")
        data["attack"] = {"class_path": f"bdclean.attacks.{name}", "init_args": options}
    sections = {"model": model, "data": data}
    return {f"{section}.{key}": value for section, values in sections.items() for key, value in values.items()}


def _check_options(attack: str, options: Mapping[str, Any], what: str) -> None:
    """Refuse options of an attack that have other names or types than its constructor says: defaults are not checked.

    Raises:
        InputError: If there are such.
    """
    kind = attacks.ATTACKS[attack]
    parts = [part for part in reversed(kind.mro()) if issubclass(part, attacks.Attack)]
    hints = {name: hint for part in parts for name, hint in get_type_hints(part.__init__).items()}
    for name, value in options.items():
        # The parser takes None for an option that is not given.
        if value is None and type(None) not in get_args(hints.get(name)):
            raise InputError(f"{what}: its attack's {name} cannot be None")
    parser = LightningArgumentParser(exit_on_error=False)
    parser.add_class_arguments(kind, "attack")
    try:
        parsed = parser.parse_object({"attack": {name: _listed(value) for name, value in options.items()}}).attack
    except ArgumentError as error:
        raise InputError(f"{what}: its attack: {readable(' '.join(str(error).split()), '', CLASSES)}") from error
    for name, value in options.items():
        # The parser takes texts for numbers. Those would count as the user's wish, and the trigger be drawn anew.
        if isinstance(value, str) and not isinstance(parsed[name], str):
            raise InputError(f"{what}: its attack's {name} is a text")


def main(args: list[str] | None = None) -> None:
    """Run the command line.

    Args:
        args: Its words after the program's name; by default those of the shell.

    Raises:
        SystemExit: With a code of `bdclean.exits`, after one line on standard error.
    """
    words = sys.argv[1:] if args is None else args
    if early.answer(words):
        raise SystemExit(Exit.DONE)
    quieten()
    logging.getLogger("bdclean").addHandler(NOTICES)
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Names of files need not be UTF-8, nor terminals: what cannot be written is written with a backslash.
        sys.stdout.reconfigure(errors="backslashreplace")
    if not sys.stderr.isatty():
        # How many steps Lightning's progress bars wait before they are drawn again: in a file, until they are full.
        os.environ.setdefault("TQDM_MINITERS", "1000000")
    try:
        early.check(words)
        CommandLine(
            AttackModule,
            PoisonDataModule,
            trainer_class=Trainer,
            seed_everything_default=0,
            parser_kwargs={"version": __version__},
            save_config_callback=LogConfig,
            # Without a logger Lightning's own would land on a config.yaml in the current folder.
            save_config_kwargs={"save_to_log_dir": False},
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
            args=words,
        )
    except KeyboardInterrupt as error:
        _say(interruption(error))
        raise SystemExit(Exit.INTERRUPTED) from error
    except Exception as error:
        line = mistake(error, words[0] if words else "", CLASSES)
        if line is None:
            raise
        _say(f"bdclean: error: {line}")
        raise SystemExit(Exit.MISTAKE) from error


def _say(line: str) -> None:
    """Print a line on standard error, once for all processes."""
    if os.environ.get("LOCAL_RANK", "0") == "0":
        print(line, file=sys.stderr)
