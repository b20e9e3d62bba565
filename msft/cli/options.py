"""The flags of each command as typed settings: one declaration gives the flag, its help, its type and its bounds."""

import argparse
import dataclasses
from collections.abc import Mapping

from msft.config import PAPER_SETTINGS, RunConfig
from msft.cost.plan import CARD, PEAK, UTILISATION
from msft.errors import nearest
from msft.launch import grid
from msft.launch.slurm import Options as Slurm
from msft.paths import expanded
from msft.settings import check_values, setting

MISSING = object()  # stands for the value of a flag that was given without one
_RUNS_DIR = setting("runs", "folder of run directories")
_DATA_DIR = setting(None, "folder in hub format that stands in for the hub")


@dataclasses.dataclass
class Run:
    """train a run, go on with it, or read it when it is finished"""  # noqa: D403, D415

    config: str | None = setting(None, "YAML file with settings; flags override it")
    runs_dir: str = _RUNS_DIR
    no_wait: bool = setting(False, "fail at once where another process is at the same run")
    quiet: bool = setting(False, "print the result only")


@dataclasses.dataclass
class Plan:
    """say what a run or a grid costs before anything is trained: FLOPs, hours, memory, disk"""  # noqa: D403, D415

    grid: str | None = setting(None, "plan a grid in place of one run: paper, tiny or a YAML file")
    config: str | None = setting(None, "YAML file with a run's settings; flags override it")
    runs_dir: str = _RUNS_DIR
    slots: int = setting(1, "runs at a time", low=1, high=4096)
    utilisation: float = setting(UTILISATION, "share of the device's peak that is used", low=0.001, high=1.0)
    peak: float = setting(PEAK, "peak of the device in TFLOP/s: an H100's dense bf16", low=1e-6, high=1e6)
    card: float = setting(CARD, "memory of the device in GB", low=0.1, high=1e5)
    json: bool = setting(False, "print JSON")


@dataclasses.dataclass
class Grid:
    """expand a grid to runs, show them, and train them here or on a cluster"""  # noqa: D403, D415

    runs_dir: str = _RUNS_DIR
    submit: str | None = setting(
        None, "train what is not finished; without it nothing starts", choices=("local", "slurm")
    )
    slots: int | None = setting(None, "runs at a time; none takes one a GPU, or what the cores hold", low=1, high=4096)
    data_dir: str | None = _DATA_DIR
    device: str | None = setting(None, "cpu, cuda, ...; none takes what is there")
    any_disk: bool = setting(False, "start although the disk is estimated too small")


@dataclasses.dataclass
class Status:
    """list the runs of a folder: accuracy, what they took and what was estimated, why they failed"""  # noqa: D403, D415

    runs_dir: str = _RUNS_DIR
    json: bool = setting(False, "print JSON")


@dataclasses.dataclass
class Eval:
    """measure a model, five-shot, without training"""  # noqa: D403, D415

    mixture: str | None = setting(
        None, "whose test sets; none takes those of the run that the model lies in, else tiny"
    )
    data_dir: str | None = _DATA_DIR
    precision: str | None = setting(
        None, "of the weights; none takes the run's, else the model's own", choices=("bf16", "fp32")
    )
    max_prompt_tokens: int | None = setting(
        None, "tokens a prompt at most; none takes the run's, else 700", low=8, high=131072
    )
    max_new_tokens: int | None = setting(None, "tokens generated an item at most; none likewise", low=1, high=131072)
    eval_batch_size: int | None = setting(None, "items a forward pass; none likewise", low=1, high=65536)
    device: str | None = setting(None, "cpu, cuda, ...; none takes what is there")


@dataclasses.dataclass
class Methods:
    """list the methods and their parameters"""  # noqa: D403, D415

    methods_dir: str | None = setting(None, "a folder with methods of your own")


@dataclasses.dataclass
class Export:
    """write a finished run's best checkpoint with a model card, to a folder or the hub"""  # noqa: D403, D415

    push: bool = setting(False, "TARGET is the hub's owner/name, and the files go there")
    public: bool = setting(False, "the repository that --push makes is public")
    dtype: str | None = setting(None, "convert the weights; none leaves them as trained", choices=("bf16", "fp32"))


# command -> (its own flags, flags of settings besides, {positional: help})
COMMANDS: dict[str, tuple] = {
    "run": (Run, (RunConfig,), {}),
    "plan": (Plan, (RunConfig,), {}),
    "grid": (Grid, (Slurm,), {"grid": "paper, tiny or a YAML file"}),
    "status": (Status, (), {}),
    "eval": (Eval, (), {"model": "tiny name, hub id or local folder, such as <run>/best"}),
    "export": (Export, (), {"run": "directory of a finished run", "target": "a new folder; with --push owner/name"}),
    "methods": (Methods, (), {}),
}


class _Help(argparse.RawDescriptionHelpFormatter):
    """Shows `--seed VALUE`, though the parser takes a flag without its value too, to name it with the other errors."""

    def _format_args(self, action, default_metavar):
        text = super()._format_args(action, default_metavar)
        return text.strip("[]") if action.option_strings else text


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def parser_of(command: str) -> argparse.ArgumentParser:
    """The parser of a command. Values stay texts: `read` checks them, so that all errors are told at once."""
    own, more, positional = COMMANDS[command]
    names = "".join(f" {name.upper()}" for name in positional)
    parser = argparse.ArgumentParser(
        prog=f"msft {command}",
        usage=f"msft {command}{names} [flags]",
        description=f"{own.__doc__[0].upper()}{own.__doc__[1:]}.",
        epilog=grid.__doc__ if command == "grid" else None,
        formatter_class=_Help,
        allow_abbrev=False,
    )
    for name, doc in positional.items():
        parser.add_argument(name, nargs="?", metavar=name.upper(), help=doc)
    titles = {RunConfig: "settings of the run (see also `msft methods`)", Slurm: "options of --submit slurm"}
    for kind in (own, *more):
        group = parser.add_argument_group(titles.get(kind, "flags of the command"))
        for field in dataclasses.fields(kind):
            _add(group, kind, field)
    return parser


def _add(group, kind: type, field: dataclasses.Field) -> None:
    meta = field.metadata
    if field.name == "params":
        group.add_argument("--params", nargs="*", action="extend", metavar="NAME=VALUE", help=meta["doc"])
    elif field.type is bool and kind is not RunConfig:
        group.add_argument(_flag(field.name), action="store_true", default=None, help=meta["doc"])
    else:
        paper = PAPER_SETTINGS.get(field.name) if kind is RunConfig else None
        none = f"the model's own, else {paper}" if paper else "none"
        default = none if field.default is None else field.default
        choices = f"; one of {', '.join(meta['choices'])}" if meta["choices"] else ""
        text = f"{meta['doc']}{choices} (default: {default})".replace("%", "%%")
        group.add_argument(_flag(field.name), nargs="?", const=MISSING, action="append", metavar="VALUE", help=text)


def read(command: str, words: list[str]) -> tuple[dict, dict[type, dict], list[str]]:
    """(positional values, {settings class: values that were given}, problems).

    Values of the command's own class are checked and have their defaults; the others are as they were given, for
    RunConfig and the like to check.
    """
    own, more, positional = COMMANDS[command]
    parsed, left = parser_of(command).parse_known_args(words)
    flags = [_flag(field.name) for kind in (own, *more) for field in dataclasses.fields(kind)]
    problems = [
        f"unknown argument {word!r}.{nearest(word.split('=')[0], [*flags, '--help'])}"
        for before, word in zip(["", *left], left, strict=False)
        if word.startswith("-") or not before.startswith("--")  # the value of an unknown flag is no second error
    ]
    given: dict[type, dict] = {}
    for kind in (own, *more):
        values = {}
        for field in dataclasses.fields(kind):
            value = getattr(parsed, field.name)
            if isinstance(value, list) and field.name != "params":
                if len(value) > 1:
                    each = ", ".join("nothing" if text is MISSING else repr(text) for text in value)
                    problems.append(f"{_flag(field.name)} is given {len(value)} times: {each}; give it once")
                value = value[-1]
            if isinstance(value, str) and value.startswith("~"):  # no shell expands it in --flag=~/x
                value = expanded(value)
            values[field.name] = value
        problems += [f"{_flag(name)} needs a value" for name, value in values.items() if value is MISSING]
        given[kind] = {name: value for name, value in values.items() if value is not None and value is not MISSING}
    if own is not RunConfig:
        clean, found = check_values(own, given[own], "flag")
        problems += found
        given[own] = vars(own(**clean)) if not found else clean
    told = {name: getattr(parsed, name) and expanded(getattr(parsed, name)) for name in positional}
    if not unknown_only(problems):
        problems += [f"{name.upper()} is missing: {doc}" for name, doc in positional.items() if told[name] is None]
    return told, given, problems


def unknown_only(problems: list[str]) -> bool:
    """Whether unknown words are all that is wrong: a missing positional may then be one of them, mistyped."""
    return bool(problems) and all(problem.startswith("unknown argument") for problem in problems)


def params_of(texts: list[str] | None) -> tuple[dict, list[str]]:
    """({name: value} of NAME=VALUE texts, problems)."""
    pairs = [text.partition("=") for text in texts or []]
    wrong = [name + sign + value for name, sign, value in pairs if not sign]
    problems = [f"--params takes NAME=VALUE; found {', '.join(wrong)}"] if wrong else []
    names = [name for name, sign, _ in pairs if sign]
    problems += [
        f"--params names {name!r} twice; give it once" for name in dict.fromkeys(names) if names.count(name) > 1
    ]
    return {name: value for name, sign, value in pairs if sign}, problems


def merged(values: Mapping, given: Mapping, source: str) -> tuple[dict, list[str]]:
    """(settings of a file with the flags over them, problems)."""
    own = values.get("params") or {}
    params, problems = params_of(given.get("params"))
    if not isinstance(own, dict):
        return dict(values), [*problems, f"{source}: params = {own!r}: give a mapping of names to values"]
    plain = {name: value for name, value in given.items() if name != "params"}
    return {**values, **plain, **({"params": {**own, **params}} if own or params else {})}, problems
