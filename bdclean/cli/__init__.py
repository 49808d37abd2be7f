"""The command line: what there is to do, and with which options. What is done, `bdclean.tasks` does."""
