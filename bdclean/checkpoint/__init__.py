"""Read untrusted checkpoints, and write networks in the format of the file that they came from."""

from bdclean.checkpoint.backdoorbench import Triggered
from bdclean.checkpoint.folder_writing import is_folder, whole_folder
from bdclean.checkpoint.forms import MARK, Checkpoint
from bdclean.checkpoint.reading import read
from bdclean.checkpoint.write import check, write, write_text, write_whole

__all__ = [
    "MARK",
    "Checkpoint",
    "Triggered",
    "check",
    "is_folder",
    "read",
    "whole_folder",
    "write",
    "write_text",
    "write_whole",
]
