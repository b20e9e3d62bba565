"""Typed settings: one declaration gives the default, the doc line, the bounds and the flag of a setting."""

import dataclasses
import math
import numbers
import os
import re
import types
import typing
from collections.abc import Mapping

import yaml

from msft.errors import unknown

_AMBIGUOUS = re.compile(r"[-+]?(0\d+|\d[\d_]*_[\d_]*|\d+(:[0-5]?\d)+)(\.\d*)?")


class _OnceLoader(yaml.SafeLoader):
    """Safe YAML in which no key may stand twice: plain YAML takes the last of them without a word."""

    def compose_mapping_node(self, anchor):
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in seen:
                raise yaml.MarkedYAMLError(f"the key {key.value!r} stands twice", key.start_mark)
            seen.add(key.value)
        return node

    def construct_object(self, node, deep=False):
        # YAML 1.1 reads 020 as 16, 1_000 as 1000 and 1:30 as 90; the command line reads other numbers or none
        is_number = isinstance(node, yaml.ScalarNode) and node.tag in (
            "tag:yaml.org,2002:int",
            "tag:yaml.org,2002:float",
        )
        if is_number and _AMBIGUOUS.fullmatch(node.value):
            raise yaml.MarkedYAMLError(
                f"the number {node.value} can be read in two ways; write it plainly", node.start_mark
            )
        return super().construct_object(node, deep)


def parse_yaml(text: str) -> object:
    """What `yaml.safe_load` gives, but a key that stands twice in a mapping is an error too."""
    return _OnceLoader(text).get_single_data()


def setting(default, doc: str, *, low=None, high=None, choices=None, result=True, epochs=False):
    """A dataclass field with its doc line, inclusive bounds or choices.

    result: whether the value can change a run's numbers, and so its directory's hash.
    epochs: whether it is a length of training, which must end with an evaluation.
    """
    meta = {"doc": doc, "low": low, "high": high, "choices": choices, "result": result, "epochs": epochs}
    if isinstance(default, dict):
        return dataclasses.field(default_factory=lambda: dict(default), metadata=meta)
    return dataclasses.field(default=default, metadata=meta)


def _allowed_types(annotation) -> tuple[type, ...]:
    options = typing.get_args(annotation) if isinstance(annotation, types.UnionType) else (annotation,)
    return tuple(options)


def _coerce(value, options: tuple[type, ...]):
    """A value as one of the types, reading strings as the command line gives them; raises ValueError."""
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    elif isinstance(value, numbers.Integral) and not isinstance(value, bool):
        value = int(value)  # numpy's integers too
    if value is None or (isinstance(value, str) and value.lower() in ("none", "null")):
        if type(None) in options:
            return None
        raise ValueError
    if isinstance(value, str) and str not in options:
        if bool in options and value.lower() in ("true", "false"):
            return value.lower() == "true"
        if _AMBIGUOUS.fullmatch(value):
            raise ValueError
        for kind in (int, float):
            if kind in options:
                try:
                    return kind(value)
                except ValueError:
                    continue
        raise ValueError
    if isinstance(value, bool):
        if bool not in options:
            raise ValueError
        return value
    if isinstance(value, float) and float not in options and int in options and value.is_integer():
        return int(value)
    if isinstance(value, int) and int not in options and float in options:
        return float(value)
    if isinstance(value, Mapping) and dict in options:
        return dict(value)
    if not isinstance(value, tuple(kind for kind in options if kind is not type(None))):
        raise ValueError
    return value


def check_values(kind: type, values: Mapping, what: str) -> tuple[dict, list[str]]:
    """(clean values, problems) for the fields of a settings class; every problem is named at once."""
    fields = {field.name: field for field in dataclasses.fields(kind)}
    hints = typing.get_type_hints(kind)
    clean, problems = {}, []
    for name, value in values.items():
        if name not in fields:
            problems.append(unknown(what, name, list(fields)))
            continue
        options, meta = _allowed_types(hints[name]), fields[name].metadata
        try:
            value = _coerce(value, options)
        except (ValueError, OverflowError):
            names = " or ".join("none" if o is type(None) else o.__name__ for o in options)
            problems.append(f"{what} {name} = {value!r}: give a value of type {names}")
            continue
        if value is not None:
            if meta.get("choices") and value not in meta["choices"]:
                problems.append(f"{what} {name}: " + unknown("value", value, [str(c) for c in meta["choices"]]))
                continue
            low, high = meta.get("low"), meta.get("high")
            finite = not isinstance(value, float) or math.isfinite(value)
            if not finite or (low is not None and value < low) or (high is not None and value > high):
                least = "-inf" if low is None else low
                most = "inf" if high is None else high
                problems.append(f"{what} {name} = {value!r}: must lie in [{least}, {most}]")
                continue
        clean[name] = value
    return clean, problems


def describe(kind: type) -> list[str]:
    """A line a setting: name, default, bounds, doc."""
    lines = []
    for field in dataclasses.fields(kind):
        meta = field.metadata
        default = field.default if field.default is not dataclasses.MISSING else {}
        lines.append(f"{field.name} = {default!r}: {meta.get('doc', '')}")
    return lines
