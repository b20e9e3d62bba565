"""Paths as people spell them."""

import os
import sys
from pathlib import Path

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


def is_yaml(path: str) -> bool:
    """Whether a YAML file is there."""
    return Path(expanded(path)).suffix in (".yaml", ".yml") and Path(expanded(path)).is_file()


def is_hub_id(name: str) -> bool:
    """Whether a name is of the form of the hub, owner/name, and no path that is there."""
    return name.count("/") == 1 and not name.startswith((".", "/", "~")) and not Path(name).exists()


def settled(name: str, value: str) -> str:
    """A setting's path in one spelling, absolute, where it is a path that is there; names stay as they are."""
    path = Path(expanded(value))
    is_path = {
        "model": not value.startswith("tiny-") and (path / "config.json").is_file(),
        "mixture": is_yaml(value),
    }.get(name, path.is_dir())
    return os.path.realpath(path) if is_path else value
