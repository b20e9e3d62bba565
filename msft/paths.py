"""Paths as people spell them."""

import os
from pathlib import Path


def expanded(path: str | os.PathLike) -> str:
    """The path with the home folder in place of '~', which no shell expands in Python, a notebook or --flag=~/x."""
    return os.path.expanduser(path)


def spelled(name: str) -> str:
    """What stands for a model or mixture in a run's name and hash, however its path is spelled.

    Of a file or folder that is there it is the last part of its real path, since what is in it counts by its contents;
    any other name, such as a hub id, stays as it is.
    """
    path = Path(expanded(name))
    return path.resolve().name if path.exists() else name
