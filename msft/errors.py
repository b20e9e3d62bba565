"""The errors that a user can cause: each names the thing, the allowed values and the mend."""

import difflib
import importlib.util
import unicodedata
from collections.abc import Callable, Iterable, Sequence


class MsftError(Exception):
    """Base of every error that msft raises on purpose."""


class ConfigError(MsftError, ValueError):
    """A setting is unknown, of the wrong type or out of bounds. problems: every wrong one, a line each."""

    def __init__(self, title: str, problems: Sequence[str] = ()):
        super().__init__(together(title, problems) if problems else title)
        self.problems = list(problems) or [title]


class DataError(MsftError, ValueError):
    """A mixture file, a record or an example cannot be used as it is."""


class ModelError(MsftError, ValueError):
    """A model or tokenizer cannot be loaded or does not fit the run."""


class RunError(MsftError, RuntimeError):
    """A run directory cannot be used, or training cannot go on."""


class Interrupted(RunError):
    """The run was told to stop; its state is saved."""


class Stopped(MsftError):
    """An evaluation was asked to stop before it was done."""


def nearest(word: str, allowed: Iterable[str]) -> str:
    """' Did you mean ...?' for the closest allowed word, or '' when none is close."""
    word, names = str(word), {name.casefold(): name for name in map(str, allowed)}
    form = unicodedata.normalize("NFC", word)
    if alike := next((n for n in names.values() if n != word and unicodedata.normalize("NFC", n) == form), ""):
        return f" Did you mean {ascii(alike)}? It looks the same, its letters are composed in another way."
    close = difflib.get_close_matches(word.casefold(), names, n=1, cutoff=0.5)
    return f" Did you mean {names[close[0]]!r}?" if close else ""


def unknown(what: str, word: object, allowed: Sequence[str]) -> str:
    """One sentence for a name that is not among the allowed ones."""
    return f"unknown {what} {word!r}.{nearest(str(word), allowed)} Allowed: {', '.join(allowed)}."


def together(title: str, problems: Sequence[str]) -> str:
    """All problems of one thing in one message, a line each."""
    return "\n".join([title, *(f"  - {problem}" for problem in problems)])


def check_installed(what: str, *libraries: str) -> None:
    """Raises ConfigError where a library that something needs is missing; loads none."""
    missing = [name for name in libraries if importlib.util.find_spec(name) is None]
    if missing:
        names = " and ".join(missing)
        are = "are" if missing[1:] else "is"
        raise ConfigError(f"{what} needs {names}, which {are} not installed. Run: pip install {' '.join(missing)}")


class Checks:
    """Calls checks one after another; `done` raises all that they raised, several as one error of the first one's kind."""

    def __init__(self):
        self._errors = []

    def __call__(self, check: Callable, *args, **options):
        """What the check returns, None where it raises."""
        try:
            return check(*args, **options)
        except (ConfigError, DataError, ModelError) as error:
            self._errors.append(error)

    def done(self) -> None:
        """Raises what the checks raised."""
        if len(self._errors) > 1:
            raise type(self._errors[0])("\n".join(dict.fromkeys(map(str, self._errors))))
        for error in self._errors:
            raise error


def each(function: Callable, items: Iterable) -> tuple[list, list[tuple[object, DataError]]]:
    """(what a function makes of the items, the items that it refuses with their DataErrors)."""
    results, refused = [], []
    for item in items:
        try:
            results.append(function(item))
        except DataError as error:
            refused.append((item, error))
    return results, refused


def shortened(problems: Sequence[str], most: int = 10) -> list[str]:
    """The first problems, and how many more there are."""
    return [*problems[:most], *([f"{len(problems) - most} more lines like these"] if problems[most:] else [])]
