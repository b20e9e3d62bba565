"""Paths as people spell them."""

import os


def expanded(path: str | os.PathLike) -> str:
    """The path with the home folder in place of '~', which no shell expands in Python, a notebook or --flag=~/x."""
    return os.path.expanduser(path)
