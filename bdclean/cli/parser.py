"""The parser of subcommands and options."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

from jsonargparse import Namespace
from jsonargparse._actions import _ActionPrintConfig
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

from bdclean.benchmark import work
from bdclean.benchmark.run import benchmark
from bdclean.checkpoint import Checkpoint, read
from bdclean.cli.classes import ATTACKS, LINKS, METHODS
from bdclean.cli.diagnosis import check_classes, diagnose
from bdclean.cli.evaluations import Evaluations
from bdclean.cli.options import TRAINED
from bdclean.cli.parts import broken_part
from bdclean.cli.resolve import check_complete, defaults, resolved, suggest_source
from bdclean.cli.user_options import UserOptions, unquoted
from bdclean.data.notices import say
from bdclean.data.sources import is_poisoned
from bdclean.engine.blame import OF_LIGHTNING, blamed
from bdclean.errors import InputError
from bdclean.modules import AttackModule, Classifier, Suspect, describe
from bdclean.suspects.restoring import restore

LARGEST_SEED = 2**32 - 1
"""Largest seed that NumPy accepts."""
FUNCTIONS = {"benchmark": benchmark}
"""Subcommands without a network."""
MODELS: dict[str, type[Classifier]] = {"fit": AttackModule, "poison": AttackModule}
"""The class of `--model` in each subcommand; by default a Suspect, which is read from a checkpoint."""


class CommandLine(Evaluations, LightningCLI):
    """Lightning's command line with the subcommands of this program, and untrusted checkpoints."""

    checkpoint: Checkpoint | None = None
    recognised = False
    """Whether the network of the checkpoint was recognised from its weights."""
    user: UserOptions
    """The options that the user gave, without those from the checkpoint."""
    result: Any = None
    """The typed result of the command."""

    def __init__(self, *args: Any, command: work.Command, **options: Any) -> None:
        self._command = command
        known = {*self.subcommands(), *FUNCTIONS}
        self._named = [word for word in options["args"] if word in known]
        super().__init__(*args, **options)

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """The arguments of each subcommand's method that are not options."""
        evaluation = {"model", "dataloaders", "datamodule", "ckpt_path", "weights_only"}
        of_lightning = {"validate": evaluation, "test": evaluation}
        return {name: {"model", "datamodule"} for name in TRAINED} | of_lightning

    def _add_subcommands(self, parser: LightningArgumentParser, **kwargs: Any) -> None:
        """Add the subcommands without a network to Lightning's."""
        super()._add_subcommands(parser, **kwargs)
        registered = parser._subcommands_action
        assert registered is not None
        for name, function in FUNCTIONS.items():
            description = (function.__doc__ or "").partition("\n")[0]
            subparser = self.init_parser(description=description)
            subparser.add_function_arguments(function, skip={"command", "list"}, as_group=False)
            subparser.add_argument("--list", action="store_true", help="Only print the command of each cell.")
            registered.add_subcommand(name, subparser, help=description)
            self._subcommand_parsers[name] = subparser

    def init_parser(self, **kwargs: Any) -> LightningArgumentParser:
        """Make parsers that raise errors, which `main` prints in one line."""
        # No abbreviations: `parse_arguments` has to find --ckpt before anything else is parsed.
        settings = {"exit_on_error": False, "allow_abbrev": False, "default_env": True, "env_prefix": "BDCLEAN"}
        return super().init_parser(**settings | kwargs)

    def _prepare_subcommand_parser(self, klass: type, subcommand: str, **kwargs: Any) -> LightningArgumentParser:
        if self._named and subcommand not in self._named:
            # Making the parsers of all subcommands takes longer than parsing.
            return self.init_parser(**kwargs)
        # Lightning has one model class for all subcommands, but a Suspect has no options of training.
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
        if subcommand in LINKS:
            parser.set_defaults({"trainer.max_epochs": 10, "data.attack": {"class_path": "bdclean.attacks.BadNets"}})
            for target, source in LINKS[subcommand].items():
                compute = _checked_classes if target == "model.num_classes" else None
                parser.link_arguments(source, target, compute, apply_on="instantiate")
        else:
            parser.add_argument("--ckpt", type=str, required=True, help="File or folder of the network.")
        if subcommand in ("test", "validate"):
            # `after_test` and `after_validate` print the figures.
            parser.set_defaults({"verbose": False})
        if subcommand == "cleanse":
            parser.set_defaults({"trainer.check_val_every_n_epoch": 3})
        return parser

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse; in order of precedence: command line, configuration files, checkpoint, defaults."""
        subcommand = next(iter(self._named), "")
        self.user = UserOptions(args, subcommand)
        if subcommand not in ("", *MODELS, *FUNCTIONS) and (path := self.user.get("ckpt")):
            self.checkpoint = read(str(path))
            self._subcommand_parsers[subcommand].set_defaults(defaults(self.checkpoint))
        if subcommand == "fit" and is_poisoned(self.user.get("data.source")):
            # The default attack is not added to images that are poisoned already.
            self._subcommand_parsers[subcommand].set_defaults({"data.attack": None})
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
        """Parse a command line; errors are reported in the terms of this field."""
        # Add the help of each option as comments; other flags of --print_config are kept.
        words = [f"{word}=comments" if word == "--print_config" else word for word in words]
        # With a checkpoint, `parse_arguments` prints the configuration after it is completed.
        held = nullcontext() if self.checkpoint is None else _ActionPrintConfig.skip_print_config()
        try:
            with held:
                return parser.parse_args(words)
        except Exception as error:
            # Replace the parser's message, which is in terms of Python types.
            found = diagnose(self._subcommand_parsers.get(self.user.subcommand), self.user)
            if found is None:
                raise
            raise found from error

    def _forget_default(self, subcommand: str, key: str, module: str, names: Sequence[str]) -> None:
        """Make the requested class the default, as jsonargparse would pass the default class's options to it."""
        given = unquoted(self.user.get(f"{key}.class_path") or self.user.get(key))
        name = str(given.get("class_path") if isinstance(given, dict) else given).rpartition(".")[2]
        parser = self._subcommand_parsers[subcommand]
        default = parser.get_defaults().get(key) if name in names else None
        if default is not None and default.class_path.rpartition(".")[2] != name:
            parser.set_defaults({key: {"class_path": f"{module}.{name}"}})

    def _parse_ckpt_path(self) -> None:
        """Do nothing: Lightning would merge unchecked options of a checkpoint, which `parse_arguments` checks."""

    def _set_seed(self) -> None:
        if self.subcommand not in FUNCTIONS:
            seed = self.config[self.subcommand].seed_everything
            if not 0 <= int(seed) <= LARGEST_SEED:
                raise InputError("seed_everything", seed, f"must be from 0 to {LARGEST_SEED}")
            super()._set_seed()

    def _run_subcommand(self, subcommand: str) -> None:
        """Run a subcommand, and keep its result, which Lightning discards."""
        if subcommand in FUNCTIONS:
            options = dict(self._parser(subcommand).instantiate(self.config[subcommand]))
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
        """Make the Trainer, and turn errors of Lightning's constructor into an InputError."""
        try:
            return super().instantiate_trainer(**kwargs)
        except InputError:
            raise
        except OF_LIGHTNING as error:
            chosen, defaults = self.config[self.subcommand].trainer, self._parser(self.subcommand).get_defaults()
            changed = {name: value for name, value in vars(chosen).items() if value != defaults.get(f"trainer.{name}")}
            raise blamed(error, changed) from error

    def _make(self) -> None:
        """Make the objects, and turn errors into an InputError."""
        try:
            super().instantiate_classes()
        except InputError:
            raise
        except Exception as error:
            # The parser does not report the reason if one of several parts fails.
            if (found := broken_part(self.config[self.subcommand].trainer)) is None:
                raise
            raise found from error

    def instantiate_classes(self) -> None:
        """Make the objects, and load the checkpoint."""
        if self.subcommand in FUNCTIONS:
            return
        if self.checkpoint is None:
            self._make()
            self._describe_outputs()
            self._describe_classes()
            return
        suggestion = suggest_source(self.config[self.subcommand].data, self.checkpoint)
        self._make()
        restore(self.model, self.datamodule, self.checkpoint, self._names_trigger())
        if self.trainer.is_global_zero:
            outputs = self.model.outputs.describe()
            brief = [f"{self.checkpoint.path}: {outputs}"] if outputs else []
            lines = brief if self.checkpoint.own else [describe(self.model, self.recognised)]
            lines += [f"{self.checkpoint.path}: {note}" for note in self.checkpoint.notes]
            for line in [*lines, *suggestion]:
                say(line)
        self._describe_classes()

    def _names_trigger(self) -> bool:
        """Whether the user names the picture of the trigger, so that it may be read."""
        return any(self.user.get(f"data.attack.{name}") is not None for name in ("trigger", "init_args.trigger"))

    def _describe_outputs(self) -> None:
        """Print the kind of the network's outputs if they are not logits."""
        if (outputs := self.model.outputs.describe()) and self.trainer.is_global_zero:
            say(f"{self.model.hparams['arch']}: {outputs}")

    def _describe_classes(self) -> None:
        """Print the order of the classes of labelled images, in the first process only."""
        source = self.datamodule.source
        if source is not None and self.trainer.is_global_zero:
            say(source.describe())


def _checked_classes(number: int | None) -> int:
    """Check that the images have classes to learn."""
    if number is None:
        raise InputError("data.source", "null", "has no classes to learn")
    return number
