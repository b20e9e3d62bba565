"""Flags as version 0.1 read them, for scripts that did: old import paths (_moved.py) lead here."""

import dataclasses
from collections.abc import Mapping, Sequence

from msft.cli import options
from msft.cli.commands import COMMANDS
from msft.cli.options import Eval, Export, Grid, Methods, Plan, Run, Status
from msft.config import RunConfig

__all__ = ["Eval", "Export", "Grid", "Methods", "Plan", "Run", "Status", "read", "settings"]


def read(command: str, words: Sequence[str]) -> tuple[dict, dict[type, dict], list[str]]:
    """(positional values, {class of flags: values}, problems) of a command's words."""
    kind, _ = COMMANDS[command]
    flags = options.read(kind, words)
    values = {field.name: getattr(flags, field.name) for field in dataclasses.fields(flags)}
    places = {name: values.pop(name) or None for name in options.positionals_of(kind)}
    return places, {kind: values, **({kind.more: flags.given} if kind.more else {})}, flags.problems


def settings(flags: Mapping, values: dict, problems: list[str]) -> RunConfig:
    """The config of `run` and `plan`. Raises ConfigError with every problem."""
    whole = Run(config=flags.get("config"))
    whole.given, whole.problems = values, problems
    return options.config_of(whole)
