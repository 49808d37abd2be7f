"""The parser: what there is to do, and with which options."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

from jsonargparse import Namespace
from jsonargparse._actions import _ActionPrintConfig
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

from bdclean.benchmark import benchmark, work
from bdclean.checkpoint import Checkpoint, read
from bdclean.cli.classes import ATTACKS, LINKS, METHODS
from bdclean.cli.diagnosis import check_classes, diagnose
from bdclean.cli.evaluations import Evaluations
from bdclean.cli.parts import broken_part
from bdclean.cli.resolve import check_complete, defaults, resolved, suggest_source
from bdclean.cli.user_options import UserOptions, unquoted
from bdclean.data.notices import say
from bdclean.engine.blame import OF_LIGHTNING, blamed
from bdclean.errors import InputError
from bdclean.modules import AttackModule, Classifier, Suspect, describe
from bdclean.suspects.restoring import restore

LARGEST_SEED = 2**32 - 1
"""Of everything: numpy takes no larger one."""
FUNCTIONS = {"benchmark": benchmark}
"""Subcommands that have no network of their own."""
MODELS: dict[str, type[Classifier]] = {"fit": AttackModule}
"""What each subcommand makes of `--model`; a Suspect, read from a checkpoint, where nothing stands here."""


class CommandLine(Evaluations, LightningCLI):
    """Lightning's command line with the subcommands of this field, and suspects that are read with suspicion."""

    checkpoint: Checkpoint | None = None
    recognised = False
    """Whether the network of the checkpoint was recognised by its weights."""
    user: UserOptions
    """What the user says, and not the checkpoint."""
    result: Any = None
    """What the command found out, typed."""

    def __init__(self, *args: Any, command: work.Command, **options: Any) -> None:
        self._command = command
        known = {*self.subcommands(), *FUNCTIONS}
        self._named = [word for word in options["args"] if word in known]
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
        if self._named and subcommand not in self._named:
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
            for target, source in LINKS["fit"].items():
                made = _classes if target == "model.num_classes" else None
                parser.link_arguments(source, target, made, apply_on="instantiate")
        else:
            parser.add_argument("--ckpt", type=str, required=True, help="File or folder of the network.")
        if subcommand == "test":
            # `after_test` prints the figures.
            parser.set_defaults({"verbose": False})
        if subcommand == "cleanse":
            parser.set_defaults({"trainer.check_val_every_n_epoch": 3})
        return parser

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse: command line before configuration files, these before the checkpoint, that before the defaults."""
        subcommand = next(iter(self._named), "")
        self.user = UserOptions(args, subcommand)
        if subcommand not in ("", "fit", *FUNCTIONS) and (path := self.user.get("ckpt")):
            self.checkpoint = read(str(path))
            self._subcommand_parsers[subcommand].set_defaults(defaults(self.checkpoint))
        if subcommand not in ("", *FUNCTIONS):
            for key, module, names in (("method", "cleansing", METHODS), ("data.attack", "attacks", ATTACKS)):
                self._forget_default(subcommand, key, f"bdclean.{module}", names)
        check_classes(self.user)
        self.config = self._parsed(parser, args)
        if self.config.subcommand in FUNCTIONS:
            return
        options = self.config[self.config.subcommand]
        check_complete(options, None if self.checkpoint is None else str(self.user.get("ckpt")))
        if self.checkpoint is not None:
            self.recognised = options.model.arch is None
            for name, value in resolved(options, self.checkpoint, self.user).items():
                options[name] = value
            _ActionPrintConfig.print_config_if_requested(parser, self.config)  # type: ignore[no-untyped-call]

    def _parsed(self, parser: LightningArgumentParser, words: Sequence[str]) -> Namespace:
        """The options that a parser makes of a command line, or an error in words of this field."""
        # With the help of each option; other flags are taken as they are.
        words = [f"{word}=comments" if word == "--print_config" else word for word in words]
        # A configuration that a checkpoint completes is printed when it is complete.
        held = nullcontext() if self.checkpoint is None else _ActionPrintConfig.skip_print_config()
        try:
            with held:
                return parser.parse_args(words)
        except Exception as error:
            # Whatever the parser says: it speaks of types of Python.
            found = diagnose(self._subcommand_parsers.get(self.user.subcommand), self.user)
            if found is None:
                raise
            raise found from error

    def _forget_default(self, subcommand: str, key: str, module: str, names: Sequence[str]) -> None:
        """Make the class that the user names the default, if it is another: jsonargparse would hand on its options."""
        given = unquoted(self.user.get(f"{key}.class_path") or self.user.get(key))
        name = str(given.get("class_path") if isinstance(given, dict) else given).rpartition(".")[2]
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
                raise InputError("seed_everything", seed, f"must be from 0 to {LARGEST_SEED}")
            super()._set_seed()

    def _run_subcommand(self, subcommand: str) -> None:
        """As Lightning's, which forgets the result."""
        if subcommand in FUNCTIONS:
            options = dict(self.config[subcommand])
            del options["config"]
            FUNCTIONS[subcommand](**options, command=self._command)
            return
        before, after = (getattr(self, f"{when}_{subcommand}", None) for when in ("before", "after"))
        if before is not None:
            before()
        self.result = getattr(self.trainer, subcommand)(**self._prepare_subcommand_kwargs(subcommand))
        if after is not None:
            after()

    def instantiate_trainer(self, **kwargs: Any) -> Any:
        """Make the Trainer, from options that Lightning checks in a constructor of its own."""
        try:
            return super().instantiate_trainer(**kwargs)
        except InputError:
            raise
        except OF_LIGHTNING as error:
            chosen, defaults = self.config[self.subcommand].trainer, self._parser(self.subcommand).get_defaults()
            asked = {name: value for name, value in vars(chosen).items() if value != defaults.get(f"trainer.{name}")}
            raise blamed(error, asked) from error

    def _make(self) -> None:
        """Make the objects, by Lightning."""
        try:
            super().instantiate_classes()
        except InputError:
            raise
        except Exception as error:
            # The parser does not pass on why it could not make one of several parts.
            if (found := broken_part(self.config[self.subcommand].trainer)) is None:
                raise
            raise found from error

    def instantiate_classes(self) -> None:
        """Make the objects, and fill them with what the checkpoint holds."""
        if self.subcommand in FUNCTIONS:
            return
        if self.checkpoint is None:
            self._make()
            self._say_outputs()
            self._describe_classes()
            return
        suggestion = suggest_source(self.config[self.subcommand].data, self.checkpoint)
        self._make()
        restore(self.model, self.datamodule, self.checkpoint, self._names_trigger())
        if self.trainer.is_global_zero:
            outputs = self.model.outputs.describe()
            own = [f"{self.checkpoint.path}: {outputs}"] if outputs else []
            said = own if self.checkpoint.own else [describe(self.model, self.recognised)]
            said += [f"{self.checkpoint.path}: {note}" for note in self.checkpoint.notes]
            for line in [*said, *suggestion]:
                say(line)
        self._describe_classes()

    def _names_trigger(self) -> bool:
        """Whether the user names the picture of the trigger, so that it may be read."""
        return any(self.user.get(f"data.attack.{name}") is not None for name in ("trigger", "init_args.trigger"))

    def _say_outputs(self) -> None:
        """Say what the network outputs, if it is not logits."""
        if (outputs := self.model.outputs.describe()) and self.trainer.is_global_zero:
            say(f"{self.model.hparams['arch']}: {outputs}")

    def _describe_classes(self) -> None:
        """Say once in which order the classes of labelled images are."""
        source = self.datamodule.source
        if source is not None and self.trainer.is_global_zero:
            say(source.describe())


def _classes(number: int | None) -> int:
    """How many classes a network learns."""
    if number is None:
        raise InputError("data.source", "null", "has no classes to learn")
    return number
