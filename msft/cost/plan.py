"""What runs will cost, before anything is trained: stages, tokens, FLOPs, hours, disk and memory.

The methods' own code runs over a trainer that counts (rehearsal.py), and appendix F counts what it would do. Needs no
network and no GPU for the models and mixtures in sizes.yaml.
"""

import contextlib
import dataclasses
import functools
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from msft.config import RunConfig
from msft.cost.rehearsal import rehearse
from msft.cost.sizes import Sizes, sizes_of, table
from msft.errors import ConfigError, MsftError, RunError
from msft.names import filled
from msft.prepared import name_of
from msft.results.flops import FORWARD, run_flops, training_flops
from msft.results.run import Run, matching

PEAK = 989.0  # TFLOP/s of an H100's dense bf16 arithmetic
UTILISATION = 0.4  # assumed share of it
CARD = 80.0  # GB of its memory
AFTER_SFT = ("sro_sft", "soft_sro_sft")  # read their search from the finished SFT run of the same settings
_BYTES = {"bf16": 2, "fp32": 4, "mixed": 2}  # of an activation; config.weights says that of the weights


@dataclasses.dataclass(frozen=True)
class Case:
    """One way a run can go. tokens: trained.  generations: answers.  flops: as Table 7 counts them (keys train, evaluate,
    look_ahead, total).  seconds: of what is really computed, on the device that was assumed."""

    stages: int
    tokens: float
    generations: int
    flops: dict
    seconds: float


@dataclasses.dataclass(frozen=True)
class Estimate:
    """What a run costs, at least, at most and expected (peaks evenly over ten epochs); bytes of memory on the device
    (weights, gradients, Adam, activations) and the host (snapshots), and of disk.  problem: why there are no numbers."""

    config: RunConfig
    state: str
    run: Run | None = None
    least: Case | None = None
    expected: Case | None = None
    most: Case | None = None
    device: dict = dataclasses.field(default_factory=dict)
    fitting_budget: int = 0
    host: float = 0.0
    disk_mean: float = 0.0
    disk_peak: float = 0.0
    disk_after: float = 0.0
    problem: str = ""


@dataclasses.dataclass(frozen=True)
class Rates:
    """FLOP/s of training and of evaluation by model where finished runs tell them, else those of the card."""

    assumed: float
    measured: dict

    def of(self, model: str) -> tuple[float, float]:
        """(training, evaluation) in FLOP/s."""
        return self.measured.get(model, (self.assumed, self.assumed))


def rates_of(runs: Iterable[Run], utilisation: float = UTILISATION, peak: float = PEAK) -> Rates:
    """Rates from finished runs, by model; peak in TFLOP/s."""
    sums: dict = {}
    for model, *values in filter(None, map(_speed_of, runs)):
        sums[model] = [a + b for a, b in zip(sums.get(model, [0.0] * 4), values, strict=True)]
    measured = {model: (s[0] / s[1], s[2] / s[3]) for model, s in sums.items() if all(s)}
    return Rates(utilisation * peak * 1e12, measured)


@functools.cache  # of a run that is asked for again, as by `status`
def _speed_of(run: Run) -> tuple | None:
    """(model, FLOPs of training, their seconds, FLOPs of evaluation, their seconds) of a finished run, if they are known."""
    try:
        result, about = run.result, run.about
        # the seconds are those of its last session, and none for a search that was read
        if about["config"]["method"] in AFTER_SFT or result.get("resumed"):
            return None
        size, seconds = result["parameters"], result["seconds"]
        trained = [entry["result"] for entry in run.journal if entry["kind"] == "roll_out"]
        training = sum(training_flops(trained, size, result.get("frozen", 0)))
        evaluation = FORWARD * size * sum(sum(point["tokens"].values()) for point in measured(trained))
        return about["config"]["model"], training, float(seconds["train"]), evaluation, float(seconds["evaluate"])
    except (MsftError, KeyError, TypeError):  # a damaged run is no measure
        return None


def measured(results: Iterable[Mapping]) -> list[Mapping]:
    """The points of roll-outs that were evaluated; a start point mostly was before."""
    return [point for result in results for point in result["points"] if not point["reused"]]


def plan(
    configs: Sequence[RunConfig], runs_dir: str | Path = "runs", rates: Rates | None = None, card: float = CARD
) -> list[Estimate]:
    """An estimate for each config, in their order. A run whose size cannot be known has `problem` in place of numbers.

    rates: FLOP/s; None takes those of finished runs with the same model, else 40 % of an H100.  card: GB a device.
    """
    if not (isinstance(configs, Sequence) and all(isinstance(config, RunConfig) for config in configs)):
        raise ConfigError(f"{configs!r:.60} is no list of RunConfigs: give [msft.RunConfig(...)]")
    prepared, whole = {}, [filled(config) for config in configs]
    searches = [search_of(config) for config in whole]
    wanted = [*configs, *(search or config for search, config in zip(searches, whole, strict=True))]
    runs = [_of_now(*pair, prepared) for pair in zip(wanted, matching(wanted, runs_dir), strict=True)]
    runs, searched = runs[: len(whole)], runs[len(whole) :]
    if rates is None:
        rates = rates_of(run for run in runs if run and run.status == "finished")
    estimates = []
    for config, run, search, there in zip(whole, runs, searches, searched, strict=True):
        state = run.status if run else "missing"
        has_search = bool(search) and (search in whole or bool(there and there.status == "finished"))
        try:
            estimates.append(dataclasses.replace(estimate(config, rates, has_search, card), state=state, run=run))
        except MsftError as error:
            estimates.append(Estimate(config, state, run, problem=str(error)))
    return estimates


def _of_now(config: RunConfig, run: Run | None, prepared: dict) -> Run | None:
    """The run of these settings, or, where it reads the user's own files and these have changed since, the one to come."""
    if run and any(map(os.path.isabs, (config.model, config.mixture, config.methods_dir or ""))):
        with contextlib.suppress(MsftError):  # what cannot be read has no other name
            return Run(run.directory.with_name(name_of(config, prepared)))
    return run


def search_of(config: RunConfig) -> RunConfig | None:
    """The SFT run that a run of SRO or Soft SRO reads its search from; None for other methods."""
    return config.sft(config.params["epochs"]) if config.method in AFTER_SFT else None


def estimate(config: RunConfig, rates: Rates, has_search: bool = False, card: float = CARD) -> Estimate:
    """What one run costs; its config with every default filled in. Raises DataError or ModelError for unknown sizes,
    RunError for a method that cannot be rehearsed."""
    sizes = sizes_of(config)
    try:
        ways = rehearse(config, sizes.sets, has_search)
    except (Exception, SystemExit) as error:  # a method of the user's own may want more of its trainer than verbs
        raise RunError(f"{config.method} cannot be rehearsed: {type(error).__name__}: {error}") from error
    fast, answering = rates.of(config.model)
    items, tokens = sum(s.all_items for s in sizes.sets), sum(s.all_items * s.item_tokens for s in sizes.sets)
    cases = {}
    for name, way in ways.items():
        flops = run_flops(way.entries, sizes.parameters, config.method, sizes.frozen)
        evaluations, trained = len(measured(way.spent)), sum(result["trained_tokens"] for result in way.spent)
        seconds = sum(training_flops(way.spent, sizes.parameters, sizes.frozen)) / fast
        seconds += FORWARD * sizes.parameters * evaluations * tokens / answering
        cases[name] = Case(way.stage, trained, evaluations * items, flops, seconds)
    by_cost = sorted(cases.values(), key=lambda case: case.flops["total"])
    # an adapter is in fp32 beside weights of either precision
    copy = _BYTES["fp32" if config.adapter else config.weights] * (sizes.parameters - sizes.frozen)
    peaks = ways["expected"].held if ways["expected"].held > 1 else 0  # one alone is the best, which is counted anyway
    ends = by_cost[0], cases["expected"], by_cost[-1]
    return Estimate(config, "missing", None, *ends, **_bytes(config, sizes, copy, peaks, card))


def _bytes(config: RunConfig, sizes: Sizes, copy: int, peaks: int, card: float) -> dict:
    """What an Estimate says in bytes; copy: of what is trained.  peaks: held ones of Algorithm 4."""
    # what an adapter begins with is noise and zeros, which no difference makes smaller
    share = 1 if config.adapter else table()["file_share"][config.weights]
    # two states at a commit, the new one and the last, each with the weights, Adam's two moments and the best
    peak = max(2 * (2 * share + 2) + peaks * share, 1 + 2 * share)
    # measured: on average the last state is there, and an eighth of the peaks that may be
    mean = 2 * share + 2 + peaks * share / 8
    disk = {"disk_peak": peak * copy, "disk_mean": mean * copy, "disk_after": 1.05 * copy}
    frozen = _BYTES[config.weights] * sizes.frozen
    device, budget = {"weights": frozen + copy, "gradients": copy, "adam": 2 * copy}, 0
    if shape := sizes.shape:
        # of a token a training pass keeps the inputs of every product, the norms in fp32, the gated MLP's three halves, no
        # attention matrix; and the logits of a third of the tokens with their fp32 copy and gradient
        keys = shape["num_key_value_heads"] * shape["head_dim"]
        layer = 24 * shape["hidden_size"] + 4 * keys + 8 * shape["intermediate_size"]
        width = _BYTES[config.precision]
        each = shape["num_hidden_layers"] * layer * width / 2 + shape["vocab_size"] * (width + 8) / 3
        mean_tokens = sum(s.train * s.tokens for s in sizes.sets) / sum(s.train for s in sizes.sets)
        # 1.3: padding, and longer batches than the mean
        device["activations"] = min(config.token_budget, 1.3 * mean_tokens * config.batch_size) * each
        budget = max(int((card * 1e9 - frozen - 4 * copy) / each), 0)
    host = (2 + (peaks if config.keep_peaks == "memory" else 0)) * copy
    return {**disk, "device": device, "fitting_budget": budget, "host": host}


def disk_needed(todo: Sequence[Estimate], slots: int) -> float:
    """Bytes that runs still need: what each leaves, and the peaks of as many as train at a time."""
    peaks = sorted((e.disk_peak - e.disk_after for e in todo), reverse=True)
    return sum(e.disk_after for e in todo) + sum(peaks[:slots])


def disk_free(runs_dir: str | Path) -> int:
    """Bytes free where the runs go, whether or not that folder is there yet."""
    place = Path(runs_dir)
    return shutil.disk_usage(next(there for there in (place, *place.parents) if there.exists())).free
