"""Estimate the duration of a command instead of running it."""

from __future__ import annotations

from bdclean.benchmark.work import Estimate
from bdclean.cli.parser import CommandLine
from bdclean.tasks.announcing import cleansing_seconds, training_seconds


class EstimatingCommandLine(CommandLine):
    """The command line, with an `Estimate` of `fit` or `cleanse` as its result."""

    result: Estimate

    def _run_subcommand(self, subcommand: str) -> None:
        trainer, model, data = self.trainer, self.model, self.datamodule
        if subcommand == "fit":
            seconds = training_seconds(trainer, model, data)
        else:
            method = self._prepare_subcommand_kwargs(subcommand)["method"]
            seconds = cleansing_seconds(trainer, method(model), data)
        self.result = Estimate(seconds, model, self.config[subcommand].data.source)
