"""The flags of each command as typed settings: one declaration gives the flag, its help, its type and its bounds."""

import argparse
import dataclasses
from collections import Counter
from collections.abc import Sequence
from typing import ClassVar

from msft.config import LORA_SETTINGS, PAPER_SETTINGS, RunConfig
from msft.cost.plan import CARD, PEAK, UTILISATION
from msft.errors import ConfigError, nearest
from msft.launch import grid
from msft.launch.slurm import Options as Slurm
from msft.paths import beside, usable
from msft.settings import check_values, read_yaml, setting

_MISSING = object()  # stands for the value of a flag that was given without one
_RUNS_DIR = setting("runs", "folder of run directories")
_DATA_DIR = setting(None, "folder in hub format that stands in for the hub")
_DEVICE = setting(None, "cpu, cuda, ...; none takes what is there")


def positional(doc: str):
    """A field for a word that stands without a flag and must be there."""
    return dataclasses.field(default="", metadata={"doc": doc, "positional": True})


class Flags:
    """Base of a command's flags. more: a settings class whose fields are flags too.  given: their values, as the texts that
    were given.  problems: what is wrong with the words, a line each."""

    more: ClassVar[type | None] = None
    given: dict[str, object]
    problems: list[str]

    def check(self, *more: str) -> None:
        """Raises ConfigError where something is wrong, that which was found since too."""
        if self.problems or more:
            raise ConfigError("the command cannot be carried out:", [*self.problems, *more])


@dataclasses.dataclass
class Run(Flags):
    """train a run, go on with it, or read it when it is finished"""

    more: ClassVar = RunConfig
    config: str | None = setting(None, "YAML file with settings; flags override it")
    runs_dir: str = _RUNS_DIR
    no_wait: bool = setting(False, "fail at once where another process is at the same run")
    quiet: bool = setting(False, "print the result only")


@dataclasses.dataclass
class Plan(Flags):
    """say what a run or a grid costs before anything is trained: FLOPs, hours, memory, disk"""

    more: ClassVar = RunConfig
    grid: str | None = setting(None, "plan a grid in place of one run: paper, tiny or a YAML file")
    config: str | None = setting(None, "YAML file with a run's settings; flags override it")
    runs_dir: str = _RUNS_DIR
    slots: int = setting(1, "runs at a time", low=1, high=4096)
    utilisation: float = setting(UTILISATION, "share of the device's peak that is used", low=0.001, high=1.0)
    peak: float = setting(PEAK, "peak of the device in TFLOP/s: an H100's dense bf16", low=1e-6, high=1e6)
    card: float = setting(CARD, "memory of the device in GB", low=0.1, high=1e5)
    json: bool = setting(False, "print JSON")


@dataclasses.dataclass
class Grid(Flags):
    """expand a grid to runs, show them, and train them here or on a cluster"""

    more: ClassVar = Slurm
    grid: str = positional("paper, tiny or a YAML file")
    runs_dir: str = _RUNS_DIR
    submit: str | None = setting(None, "train what is not finished; none starts nothing", choices=("local", "slurm"))
    slots: int | None = setting(None, "runs at a time; none takes one a GPU, or what the cores hold", low=1, high=4096)
    data_dir: str | None = _DATA_DIR
    device: str | None = _DEVICE
    token_budget: int | None = setting(None, "tokens a pass of training at most; none takes the grid's", low=16)
    any_disk: bool = setting(False, "start although the disk is estimated too small")


@dataclasses.dataclass
class Status(Flags):
    """list the runs of a folder: accuracy, what they took and what was estimated, why they failed"""

    runs_dir: str = _RUNS_DIR
    json: bool = setting(False, "print JSON")


@dataclasses.dataclass
class Eval(Flags):
    """measure a model, five-shot, without training"""

    model: str = positional("tiny name, hub id or local folder, such as <run>/best")
    mixture: str | None = setting(None, "whose test sets; none: those of the run that the model lies in, else tiny")
    data_dir: str | None = _DATA_DIR
    precision: str | None = setting(None, "of the weights; none: the run's, or the model's", choices=("bf16", "fp32"))
    max_prompt_tokens: int | None = setting(None, "tokens a prompt at most; none: the run's or 700", low=8, high=131072)
    max_new_tokens: int | None = setting(None, "tokens generated an item at most; none likewise", low=1, high=131072)
    eval_batch_size: int | None = setting(None, "items a forward pass; none likewise", low=1, high=65536)
    device: str | None = _DEVICE


@dataclasses.dataclass
class Mixture(Flags):
    """read a mixture and say what a run would train and test on, in seconds and without weights"""

    action: str = positional("check")
    mixture: str = positional("a mixture YAML, or the name of a mixture")
    model: str = setting("tiny-qwen2", "whose tokenizer counts: tiny name, hub id or local folder")
    data_dir: str | None = _DATA_DIR
    max_tokens: int = setting(512, "tokens an example at most", low=8, high=131072)
    max_prompt_tokens: int = setting(700, "tokens a prompt at most", low=8, high=131072)
    max_new_tokens: int | None = setting(None, "tokens generated an item at most", low=1, high=131072)


@dataclasses.dataclass
class Methods(Flags):
    """list the methods and their parameters"""

    methods_dir: str | None = setting(None, "a folder with methods of your own")


@dataclasses.dataclass
class Export(Flags):
    """write a finished run's best checkpoint with a model card, to a folder or the hub"""

    run: str = positional("directory of a finished run")
    target: str = positional("a new folder; with --push owner/name")
    push: bool = setting(False, "TARGET is the hub's owner/name, and the files go there")
    public: bool = setting(False, "the repository that --push makes is public")
    merge: bool = setting(False, "add the run's adapter to the weights of its base model")
    dtype: str | None = setting(None, "convert the weights; none leaves them as trained", choices=("bf16", "fp32"))


class _Help(argparse.RawDescriptionHelpFormatter):
    """Shows `--seed VALUE`, though the parser takes a flag without its value too, to name it with the other errors."""

    def _format_args(self, action, default_metavar):
        text = super()._format_args(action, default_metavar)
        return text.strip("[]") if action.option_strings else text


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def flags_of(kind: type) -> list[dataclasses.Field]:
    """The fields of a settings class that are flags."""
    return [field for field in dataclasses.fields(kind) if "positional" not in field.metadata]


def positionals_of(kind: type[Flags]) -> dict[str, str]:
    """{name: doc} of the words that stand without a flag."""
    return {field.name: field.metadata["doc"] for field in dataclasses.fields(kind) if "positional" in field.metadata}


def parser_of(kind: type[Flags]) -> argparse.ArgumentParser:
    """The parser of a command. Values stay texts: `read` checks them, so that all errors are told at once."""
    command, words = kind.__name__.lower(), positionals_of(kind)
    names = "".join(f" {name.upper()}" for name in words)
    parser = argparse.ArgumentParser(
        prog=f"msft {command}",
        usage=f"msft {command}{names} [flags]",
        description=f"{kind.__doc__[0].upper()}{kind.__doc__[1:]}.",
        epilog=grid.__doc__ if kind is Grid else None,
        formatter_class=_Help,
        allow_abbrev=False,
    )
    for name, doc in words.items():
        parser.add_argument(name, nargs="?", metavar=name.upper(), help=doc)
    titles = {RunConfig: "settings of the run (see also `msft methods`)", Slurm: "options of --submit slurm"}
    for part in filter(None, (kind, kind.more)):
        group = parser.add_argument_group(titles.get(part, "flags of the command"))
        for field in flags_of(part):
            meta, default = field.metadata, "none" if field.default is None else field.default
            if field.name == "params":
                group.add_argument("--params", nargs="*", action="extend", metavar="NAME=VALUE", help=meta["doc"])
                continue
            if field.type is bool and part is not RunConfig:
                group.add_argument(_flag(field.name), action="store_true", default=None, help=meta["doc"])
                continue
            if part is RunConfig and field.name in PAPER_SETTINGS:
                default = f"the model's own, else {PAPER_SETTINGS[field.name]}"
            elif field.name in LORA_SETTINGS:
                default = f"{LORA_SETTINGS[field.name]} with adapter=lora"
            choices = f"; one of {', '.join(meta['choices'])}" if meta["choices"] else ""
            text = f"{meta['doc']}{choices} (default: {default})".replace("%", "%%")
            value = {"nargs": "?", "const": _MISSING, "action": "append", "metavar": "VALUE"}
            group.add_argument(_flag(field.name), **value, help=text)
    return parser


def read(kind: type[Flags], words: Sequence[str]) -> Flags:
    """A command's flags, checked, with their defaults; those of `more` as they were given, and all that is wrong."""
    parsed, unread = parser_of(kind).parse_known_args(words)
    parts = [part for part in (kind, kind.more) if part]
    known = [_flag(field.name) for part in parts for field in flags_of(part)]
    problems = [
        f"unknown argument {word!r}.{nearest(word.split('=')[0], [*known, '--help'])}"
        for before, word in zip(["", *unread], unread, strict=False)
        if word.startswith("-") or not before.startswith("--")  # the value of an unknown flag is no second error
    ]
    values, *of_more = [_given(parsed, part, problems) for part in parts]
    clean, wrong = check_values(kind, values, "flag")
    problems += wrong
    places = {name: usable(getattr(parsed, name) or "") for name in positionals_of(kind)}
    if not problems or not all(problem.startswith("unknown argument") for problem in problems):
        # where unknown words are all that is wrong, one of them may be the missing one, mistyped
        problems += [
            f"{name.upper()} is missing: {doc}" for name, doc in positionals_of(kind).items() if not places[name]
        ]
    flags = kind(**clean, **places)
    flags.given, flags.problems = of_more[0] if of_more else {}, problems
    return flags


def _given(parsed: argparse.Namespace, part: type, problems: list[str]) -> dict:
    """{name: value} of the flags that were given; what is wrong with them is added to the problems."""
    values = {}
    for name in (field.name for field in flags_of(part)):
        value = getattr(parsed, name)
        if isinstance(value, list) and name != "params":
            if len(value) > 1:
                each = ", ".join("nothing" if text is _MISSING else repr(text) for text in value)
                problems.append(f"{_flag(name)} is given {len(value)} times: {each}; give it once")
            value = value[-1]
        if value == []:
            problems.append("--params needs NAME=VALUE")
        if value is not None:
            is_path = isinstance(value, str) and (value.startswith("~") or name.endswith("_dir"))
            try:  # no shell expands it in --flag=~/x
                values[name] = (usable(value) or _MISSING) if is_path else value
            except ConfigError as error:
                problems += [f"{_flag(name)}: {problem}" for problem in error.problems]
    problems += [f"{_flag(name)} needs a value" for name, value in values.items() if value is _MISSING]
    return {name: value for name, value in values.items() if value is not _MISSING}


def config_of(flags: Flags) -> RunConfig:
    """The config of `run` and `plan`: the file's settings, the flags over them. Raises ConfigError with every problem."""
    values, problems = {}, list(flags.problems)
    if flags.config:
        try:
            values = {name: beside(flags.config, name, value) for name, value in read_yaml(flags.config).items()}
        except ConfigError as error:
            problems += error.problems
    pairs = [text.partition("=") for text in flags.given.get("params") or ()]
    if wrong := ["".join(parts) for parts in pairs if not parts[1]]:
        problems.append(f"--params takes NAME=VALUE; found {', '.join(wrong)}")
    names = Counter(name for name, sign, _ in pairs if sign)
    problems += [f"--params names {name!r} twice; give it once" for name, count in names.items() if count > 1]
    params = {name: value for name, sign, value in pairs if sign}
    in_file = values.get("params") or {}
    if not isinstance(in_file, dict):
        problems.append(f"{flags.config}: params = {in_file!r}: give a mapping of names to values")
    elif in_file or params:
        values["params"] = {**in_file, **params}
    settings = {name: value for name, value in flags.given.items() if name != "params"}
    return RunConfig.from_mapping({**values, **settings}, problems)
