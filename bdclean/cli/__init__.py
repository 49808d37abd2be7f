"""The command line: subcommands and options of `bdclean.tasks`."""
