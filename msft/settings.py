"""Typed settings: one declaration gives the default, the doc line, the bounds and the flag of a setting."""

import ast
import contextlib
import dataclasses
import math
import numbers
import os
import types
import typing
from collections.abc import Mapping
from pathlib import Path

import yaml

from msft.errors import ConfigError, MsftError, unknown

DTYPES = {"bf16": "bfloat16", "fp32": "float32"}  # precisions and their names in torch and transformers


class _Loader(yaml.SafeLoader):
    """Safe YAML in which no key stands twice and a value means what the same characters mean on the command line."""

    def compose_mapping_node(self, anchor):
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in seen:
                raise yaml.MarkedYAMLError(f"the key {key.value!r} stands twice", key.start_mark)
            seen.add(key.value)
        return node

    def construct_object(self, node, deep=False):
        value = super().construct_object(node, deep)
        if not isinstance(node, yaml.ScalarNode) or value is None:
            return value
        # YAML 1.1 reads 020 as 16, 1:30 as 90, 1.10 as 1.1 and no as False: such a text is left to the setting's reader
        is_as_written = isinstance(value, int | float) and str(value) == node.value and not isinstance(value, bool)
        is_infinite = isinstance(value, float) and not math.isfinite(value)
        return value if is_as_written or is_infinite else node.value


def read_yaml(path: str | Path, wanted: str = "settings", error: type[MsftError] = ConfigError) -> dict:
    """The mapping in a YAML file. wanted: what it should hold. Raises `error` where there is none."""
    try:
        values = _Loader(Path(path).read_text(encoding="utf-8")).get_single_data()
    except (OSError, yaml.YAMLError, ValueError, LookupError, AttributeError, TypeError, RecursionError) as problem:
        # PyYAML lets errors of its converters out, as for `!!int ''`
        raise error(f"{path}: not readable as YAML: {problem}") from None
    if not isinstance(values, dict):
        raise error(f"{path}: a mapping of {wanted} is needed, not a {type(values).__name__}")
    return values


def setting(default, doc: str, *, low=None, high=None, choices=None, result=True, epochs=False):
    """A dataclass field with its doc line, inclusive bounds or choices.

    result: whether the value can change a run's numbers, and so its directory's hash.
    epochs: whether it is a length of training, which must end with an evaluation.
    """
    meta = {"doc": doc, "low": low, "high": high, "choices": choices, "result": result, "epochs": epochs}
    if isinstance(default, dict):
        return dataclasses.field(default_factory=lambda: dict(default), metadata=meta)
    return dataclasses.field(default=default, metadata=meta)


def _read_int(value) -> int:  # 3, "3", 3.0, "3e0"
    if isinstance(value, str):
        try:
            return int(value)
        except ValueError:
            value = float(value)
    if int(value) != value:
        raise ValueError
    return int(value)


def _read_str(value) -> str:
    if str(value).lower() in _NONE:
        raise ValueError
    return str(value) if isinstance(value, numbers.Real) else os.fspath(value)


_NONE = {"none": None, "null": None}
# type -> how a value, or its text on the command line, is read; tried in this order
_READERS = {
    type(None): lambda value: _NONE[str(value).lower()],
    bool: lambda value: {"true": True, "false": False}[str(value).lower()],
    int: _read_int,
    float: float,
    str: _read_str,
    dict: lambda value: dict(value.items()),
}
_REFUSED = (ValueError, TypeError, OverflowError, LookupError, AttributeError)


def _read(value, kinds: tuple[type, ...]):
    """A value as the first of the types that can read it; raises ValueError."""
    if isinstance(value, str) and str not in kinds and value.startswith(("[", "(", "{")):  # as a command line has it
        with contextlib.suppress(*_REFUSED, SyntaxError):
            value = ast.literal_eval(value)
    for kind, reader in _READERS.items():
        is_wrong = isinstance(value, bool) and kind is not bool  # to Python, True is the number 1
        if kind in kinds and not is_wrong:
            with contextlib.suppress(*_REFUSED):
                return reader(value)
    origins = (typing.get_origin(kind) or kind for kind in kinds)  # list[str] is a list
    classes = tuple(kind for kind in origins if isinstance(kind, type) and kind not in _READERS)
    if isinstance(value, classes):  # of a user's method, such as a list
        return value
    raise ValueError


def check_values(kind: type, values: Mapping, what: str) -> tuple[dict, list[str]]:
    """(clean values, problems) for the fields of a settings class; every problem is named at once."""
    fields = {field.name: field for field in dataclasses.fields(kind)}
    hints = typing.get_type_hints(kind)
    clean, problems = {}, []
    for name, value in values.items():
        if name not in fields:
            problems.append(unknown(what, name, list(fields)))
            continue
        origin, kinds, meta = typing.get_origin(hints[name]), typing.get_args(hints[name]), dict(fields[name].metadata)
        if origin is typing.Literal:  # in a user's method, for choices
            kinds, meta["choices"] = tuple(map(type, kinds)), kinds
        elif origin not in (types.UnionType, typing.Union):  # Optional[float] is the other one
            kinds = (hints[name],)
        try:
            value = _read(value, kinds)
        except ValueError:
            names = " or ".join("none" if k is type(None) else k.__name__ for k in kinds)
            problems.append(f"{what} {name} = {value!r}: give a value of type {names}")
            continue
        choices, low, high = (meta.get(key) for key in ("choices", "low", "high"))
        low, high = -math.inf if low is None else low, math.inf if high is None else high
        if choices and value is not None and value not in choices:
            problems.append(f"{what} {name}: {unknown('value', value, list(map(str, choices)))}")
        elif isinstance(value, int | float) and not (math.isfinite(value) and low <= value <= high):
            problems.append(f"{what} {name} = {value!r}: must lie in [{low}, {high}]")
        else:
            clean[name] = value
    return clean, problems
