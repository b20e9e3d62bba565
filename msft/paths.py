"""Paths as people spell them."""

import os
import sys

from msft.errors import ConfigError


def expanded(path: str | os.PathLike) -> str:
    """The path with the home folder in place of '~', which no shell expands in Python, a notebook or --flag=~/x.

    Raises ConfigError for one that the locale cannot write.
    """
    path = os.path.expanduser(path)
    try:
        os.fsencode(path)
        path.encode()  # bytes that the locale could not read stand in a path as halves of surrogate pairs
    except UnicodeEncodeError:
        encoding = sys.getfilesystemencoding()
        raise ConfigError(f"this locale ({encoding}) cannot write the path {ascii(path)}; set PYTHONUTF8=1") from None
    return path
