"""The method zoo: one file a method, found by its file name.

A method's file holds `Params`, a dataclass of its typed settings, and `run(trainer, params)`, which is
written over the trainer's verbs and reads like the paper's algorithm. To add one, add a file, here or in a
folder of your own (`methods_dir`).
"""

import contextlib
import dataclasses
import importlib
import importlib.util
import inspect
import math
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

from msft.errors import ConfigError, MsftError, RunError, unknown
from msft.settings import check_values

_HERE = Path(__file__).parent


def _files(folder: str | None = None) -> dict[str, Path]:
    if folder and not Path(folder).is_dir():
        raise ConfigError(f"methods_dir {folder!r} is no folder; give a folder of method files")
    of_user = sorted(Path(folder).glob("*.py")) if folder else []
    if taken := [path for path in of_user if path.stem[0] != "_" and (_HERE / path.name).is_file()]:
        raise ConfigError(f"{taken[0]} has the name of a method of this package; give the file another one")
    files = {path.stem: path for path in [*sorted(_HERE.glob("*.py")), *of_user]}
    return {name: path for name, path in sorted(files.items()) if not name.startswith("_")}


def available(folder: str | None = None) -> list[str]:
    """Names of the methods here and, where given, in a folder of the user's own."""
    return list(_files(folder))


def load(name: str, folder: str | None = None) -> ModuleType:
    """The module of a method: `Params` and `run(trainer, params)`.

    Raises ConfigError for a name that no file has, or a file that cannot be imported or lacks one of the two.
    """
    files = _files(folder)
    if name not in files:
        raise ConfigError(unknown("method", name, list(files)))
    path = files[name]
    if path.parent == _HERE:
        return importlib.import_module(f"msft.methods.{name}")
    spec = importlib.util.spec_from_file_location(f"msft_user_method_{name}", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up by name
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # the file is the user's: it can raise anything
        raise ConfigError(f"method file {path} cannot be imported: {type(error).__name__}: {error}") from error
    for part in ("Params", "run"):
        if not hasattr(module, part):
            raise ConfigError(f"method file {path} has no {part!r}; it needs Params and run(trainer, params)")
    with contextlib.suppress(TypeError):  # of a run that cannot be called so
        inspect.signature(module.run).bind("trainer", "params")
        if dataclasses.is_dataclass(module.Params):
            return module
    raise ConfigError(f"method file {path}: Params must be a dataclass and run a function of (trainer, params)")


@contextlib.contextmanager
def named(module: ModuleType, folder: str | None):
    """Within it what a method of the user's own raises is a RunError with the file's line, behind which it is the cause.

    What a verb raises, or a watcher within it, stays as it is: that is not the method's.
    """
    try:
        yield
    except (Exception, SystemExit) as error:
        frames, behind = traceback.extract_tb(error.__traceback__), []
        while frames and frames[-1].filename != module.__file__:
            behind.append(frames.pop().filename)
        is_of_a_verb = any(Path(file).is_relative_to(_HERE.parent) for file in behind)
        if isinstance(error, MsftError) or not folder or not frames or is_of_a_verb:
            raise
        what = f"{type(error).__name__}: {error}"
        raise RunError(f"method file {module.__file__}, line {frames[-1].lineno}: {what}; mend it there") from error


def check_params(
    name: str, values: Mapping, folder: str | None = None, evaluations: int | None = None
) -> tuple[dict, list[str]]:
    """(parameters, defaults filled in; problems). evaluations: an epoch's; lengths of training must end with one."""
    try:
        kind = load(name, folder).Params
    except ConfigError as error:
        return {}, [str(error)]
    clean, problems = check_values(kind, values, f"parameter of {name}")
    if problems:
        return {}, problems
    try:
        params = vars(kind(**clean)).copy()
    except TypeError as error:  # a field without a default
        return {}, [f"method {name}: {error}; give every field of Params a default"]
    for field in dataclasses.fields(kind):
        count = params[field.name] * evaluations if evaluations and field.metadata.get("epochs") else 0
        if not math.isclose(count, round(count)):
            interval = f"1/{evaluations}, the evaluation interval (evaluations_per_epoch = {evaluations})"
            what = f"parameter of {name} {field.name} = {params[field.name]}"
            problems.append(f"{what}: must be a multiple of {interval}")
    return params, problems


def __getattr__(name: str) -> ModuleType:
    if name in _files():
        return load(name)
    raise AttributeError(f"module 'msft.methods' has no attribute {name!r}")
