"""A grid of runs from a YAML file: settings, where a list is an axis, expanded to one config a run.

model: [tiny-qwen2, tiny-qwen3]
mixture: tiny
method: [sft, msft]
seed: [20, 30, 40]
params: {msft: {budget: [1, 3]}}          # by method; a list is an axis here too
blocks: [{method: ies}, ...]              # several such products; each adds to or overrides what stands above
slurm: {partition: gpu, hours: 24}        # for --submit slurm

Paths of mixtures, models, data_dir and methods_dir are relative to the file, else to the current folder.
"""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from msft import methods
from msft.config import RunConfig
from msft.errors import ConfigError, together, unknown
from msft.names import filled
from msft.paths import PATHS, beside, usable
from msft.settings import read_yaml

_HERE = Path(__file__).parent / "grids"
_SETTINGS = [field.name for field in dataclasses.fields(RunConfig)]


class Grid(NamedTuple):
    """runs: the configs, each once, in the file's order.  slurm: options of the cluster that the file states."""

    runs: tuple[RunConfig, ...]
    slurm: dict


def built_in() -> list[str]:
    """Names of the grids that come with the package."""
    return sorted(path.stem for path in _HERE.glob("*.yaml"))


def read_grid(name_or_path: str, settings: Mapping | None = None) -> Grid:
    """A grid by name (paper, tiny) or from a YAML file.

    settings: values that stand in every run in place of the file's, such as {"data_dir": ...}.
    Raises ConfigError that names every unknown key and every wrong value of the file at once.
    """
    path = _HERE / f"{name_or_path}.yaml" if name_or_path in built_in() else Path(usable(name_or_path))
    if not path.is_file():
        raise ConfigError(unknown("grid", name_or_path, built_in()) + " Or give the path of a YAML file.")
    document = read_yaml(path)
    common = {"params": {}, **{key: value for key, value in document.items() if key not in ("blocks", "slurm")}}
    blocks = document.get("blocks", [{}])
    problems = _check(common, blocks, document.get("slurm", {}))
    runs: dict[RunConfig, RunConfig] = {}  # each once, in the file's order, by what its run will have
    used: set[str] = set()  # methods
    for block in [] if problems else blocks:
        merged = {**common, **block, "params": {**common["params"], **block.get("params", {})}}
        merged |= {key: [beside(path, key, each) for each in _axis(merged[key])] for key in PATHS if key in merged}
        merged |= {key: value for key, value in (settings or {}).items() if value is not None}
        here = [str(method) for method in _axis(merged.get("method", RunConfig().method))]
        used.update(here)
        problems += [_unused(method, here) for method in block.get("params", {}) if method not in here]
        for values in _product(merged, problems):
            try:
                config = RunConfig.from_mapping(values)
                runs.setdefault(filled(config), config)
            except ConfigError as error:
                problems += error.problems
    problems += [] if problems else [_unused(method, sorted(used)) for method in common["params"] if method not in used]
    if problems:
        raise ConfigError(together(f"{path}: the grid cannot be expanded:", list(dict.fromkeys(problems))))
    return Grid(tuple(runs.values()), dict(document.get("slurm", {})))


def _check(common: Mapping, blocks: object, slurm: object) -> list[str]:
    problems = [unknown("key", key, [*_SETTINGS, "blocks", "slurm"]) for key in common if key not in _SETTINGS]
    if not isinstance(slurm, dict):
        problems.append(f"slurm = {slurm!r}: give a mapping of options")
    if not isinstance(blocks, list) or not blocks or not all(isinstance(block, dict) for block in blocks):
        return [*problems, f"blocks = {blocks!r}: give a list of mappings"]
    for key, value in ((key, value) for part in (common, *blocks) for key, value in part.items()):
        if isinstance(value, list) and (not value or any(isinstance(each, list) for each in value)):
            problems.append(f"{key} = {value!r}: give one value or a list of values, at least one")
    for number, block in enumerate(blocks, 1):
        problems += [f"block {number}: {unknown('key', key, _SETTINGS)}" for key in block if key not in _SETTINGS]
    for params in (common["params"], *(block.get("params", {}) for block in blocks)):
        if not isinstance(params, dict) or not all(isinstance(values, dict) for values in params.values()):
            problems.append(f"params = {params!r}: give a mapping of methods to their parameters")
        elif any(value == [] for values in params.values() for value in values.values()):
            problems.append(f"params = {params!r}: give every parameter at least one value")
    return problems


def _unused(method: str, methods: Sequence[str]) -> str:
    return f"params: {method!r} is not among the methods they stand for: {', '.join(methods)}"


def _product(merged: Mapping, problems: list[str]):
    """Every combination of a block's axes as the values of one config."""
    axes = {key: _axis(value) for key, value in merged.items() if key != "params"}
    folder = next((value for value in axes.get("methods_dir", []) if value), None)
    known = methods.available(folder)
    problems += [f"params: {unknown('method', method, known)}" for method in merged["params"] if method not in known]
    for values in itertools.product(*axes.values()):
        chosen = dict(zip(axes, values, strict=True))
        params_of = merged["params"].get(chosen.get("method", RunConfig().method), {})
        for params in itertools.product(*map(_axis, params_of.values())):
            yield {**chosen, "params": dict(zip(params_of, params, strict=True))}


def _axis(value) -> list:
    return value if isinstance(value, list) else [value]
