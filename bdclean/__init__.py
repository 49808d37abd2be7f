"""Cleanse image classifiers of backdoors with unlabeled images, and train backdoored ones to study them."""

__version__ = "0.1.0"


class InputError(ValueError):
    """Something the user can mend: one line that names the option and the value. The command line exits with 2."""
