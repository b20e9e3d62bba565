"""Paths as people spell them."""

import difflib
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from msft.errors import ConfigError, RunError, nearest

# of the environment: lm-eval's tasks read them
VARIABLES = ("MSFT_DATA_DIR", "MSFT_TEST_SIZE", "MSFT_MAX_PROMPT_TOKENS")
PATHS = ("model", "mixture", "data_dir", "methods_dir")  # settings that are paths, or can be
LONGEST = 255  # bytes of a file's name on most systems
# owner/name as the hub can have it; for all else its client raises an error
_HUB_ID = re.compile(r"\w+([.-]\w+)*/(?!.{97}|.*[.]git$)\w+([.-]\w+)*", re.ASCII)
_MIXTURES = re.compile(r"tiny(-\d+|-smoke)?|paper-\d+|medmcqa-21")  # the names of the package's own


def unread_variables(read: Sequence[str]) -> list[str]:
    """Environment variables with the name of one of ours, or nearly, other than those that are read."""
    return sorted(n for n in os.environ if n not in read and difflib.get_close_matches(n, VARIABLES, 1, cutoff=0.8))


def expanded(path: str | os.PathLike) -> str:
    """The path with the home folder in place of '~', which no shell expands in Python, a notebook or --flag=~/x.

    Raises ConfigError for what is no path, and for one that the locale cannot write.
    """
    try:
        path = os.fsdecode(os.path.expanduser(path))
        os.fsencode(path)
        path.encode()  # bytes that the locale could not read stand in a path as halves of surrogate pairs
    except TypeError:
        raise ConfigError(f"{path!r} is no path: give a text, or a Path of pathlib") from None
    except UnicodeEncodeError:
        encoding = sys.getfilesystemencoding()
        raise ConfigError(f"this locale ({encoding}) cannot write the path {ascii(path)}; set PYTHONUTF8=1") from None
    return path


def usable(path: str | os.PathLike) -> str:
    """`expanded`; raises ConfigError also for a path with a name that no file can have."""
    path = expanded(path)
    if long := [part[:40] for part in path.split(os.sep) if len(os.fsencode(part)) > LONGEST]:
        raise ConfigError(f"the name {long[0] + '...'!r} in a path has more than {LONGEST} bytes; give a shorter one")
    return path


def is_pointer(path: Path) -> bool:
    """Whether a file is what Git LFS leaves where it did not fetch one."""
    with path.open("rb") as file:
        return file.read(23) == b"version https://git-lfs"


def nearest_file(path: Path) -> str:
    """' Did you mean ...?' for a file that is not there, out of its folder where that may be read."""
    try:
        return nearest(path.name, os.listdir(path.parent))
    except OSError:
        return ""


def is_mixture_file(path: str) -> bool:
    """Whether a mixture's file is there, whatever its suffix; a name of the package's own stands for no file."""
    return _is_there("mixture", path)


def is_hub_id(name: str) -> bool:
    """Whether a name is of the form of the hub, owner/name, and no path that is there, be it a link that leads nowhere."""
    return bool(_HUB_ID.fullmatch(name)) and not os.path.lexists(name)


def _is_there(name: str, value: str, folder: Path = Path()) -> bool:
    """Whether a setting's value is a path that is there, seen from a folder; a name of the package's own is none."""
    path = folder / usable(value)
    if name == "model":
        return not value.startswith("tiny-") and os.path.isfile(path / "config.json")
    if name == "mixture":
        return not _MIXTURES.fullmatch(value) and os.path.isfile(path)
    return os.path.isdir(path)


def beside(file: str | os.PathLike, name: str, value: object) -> object:
    """A setting of a YAML file: a path that is there beside that file, wherever the command is started, else as it stands."""
    folder = Path(usable(file)).parent
    is_path = name in PATHS and isinstance(value, str) and value and _is_there(name, value, folder)
    return str(folder / expanded(value)) if is_path else value


def settled(name: str, value: str) -> str:
    """A setting's path in one spelling, absolute, where it is a path that is there; names stay as they are."""
    if not _is_there(name, value):
        return value
    path = Path(expanded(value))
    if name == "mixture":  # its data lie beside the name that was given, where that is a link too
        return os.path.join(os.path.realpath(path.parent), path.name)
    return os.path.realpath(path)


def check_folder(folder: Path, setting: str) -> None:
    """Raises RunError where the folder that a setting names cannot be made or written to."""
    there = next(place for place in (folder, *folder.parents) if place.exists())
    if not there.is_dir():
        raise RunError(f"{setting} {str(folder)!r}: {there} is a file; give a folder")
    if not os.access(there, os.W_OK | os.X_OK):
        raise RunError(f"{setting} {str(folder)!r}: {there} cannot be written to; give another folder")
