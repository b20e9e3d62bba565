"""A plan as text: a line a run, the sums of what is not finished, warnings, and what was assumed."""

import dataclasses
import functools
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from msft.config import RunConfig
from msft.cost.plan import CARD, Estimate, Rates, disk_free, disk_needed
from msft.names import filled

_PREFIXES = ("", *"KMGTPEZ")
_ASSUMED = """\
training and evaluation really computed, of all sub-datasets; decoding keeps a GPU less busy.
Expected: one sub-dataset over-fits in every stage, peaks lie evenly over the length of SFT. Least and most: all peak \
at once, or nobody before the method's own limit; the heaviest or the lightest sub-dataset is dropped first.
Memory: weights, gradients, Adam and the activations of one full batch, without the libraries' own. Disk: of a run's \
checkpoints at the peak, files as small as measured (benchmarks/results/storage.md). Answers as long as the right ones. \
Unfinished runs are counted whole."""
_HEAD = ["method", "model", "mixture", "seed", "settings", "state", "stages", "tokens", "answers"]
_HEAD += ["FLOPs (least to most)", "hours", "memory", "disk"]
_STATES = {"finished": "finished", "running": "running", "failed": "failed (resumable)", "unfinished": "resumable"}
_STATES |= {"missing": "missing"}


def number_text(value: float, unit: str = "") -> str:
    """A number with a decimal prefix and its unit: 1.2 GB, or 1.2 G without one."""
    place = 0
    while abs(value) >= 1000 and place < len(_PREFIXES) - 1:
        value, place = value / 1000, place + 1
    digits = f"{value:.1f}" if place and value < 10 else f"{value:.0f}"
    return f"{digits} {_PREFIXES[place]}{unit}".rstrip()


def hours_text(seconds: float) -> str:
    """Hours with three digits, as far as they can mean something."""
    return f"{seconds / 3600:.3g}" if seconds >= 36 or not seconds else "under 0.01"


bytes_text = functools.partial(number_text, unit="B")
flops_text = functools.partial(number_text, unit="FLOP")


def table_text(rows: Sequence[Sequence[str]]) -> str:
    """Aligned columns; the first row is the head."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join("  ".join(cell.ljust(n) for cell, n in zip(row, widths, strict=True)).rstrip() for row in rows)


def report(
    estimates: Sequence[Estimate], runs_dir: str | Path, rates: Rates, slots: int = 1, card: float = CARD
) -> str:
    """The plan as text: a line a run, the sums of what is not finished, disk, memory, and what was assumed."""
    counts = Counter(e.state for e in estimates)
    shown = [state for state in _STATES if counts[state] or state in ("finished", "missing")]
    counted = ", ".join(f"{counts[state]} {_STATES[state]}" for state in shown)
    lines = [f"{len(estimates)} run{'s' * (len(estimates) != 1)} in {runs_dir}: {counted}", ""]
    lines.append(table_text([_HEAD, *map(_line, estimates)]))
    unknown = [e for e in estimates if e.problem]
    lines += [f"{e.config.method} {e.config.model} {e.config.mixture}: no estimate: {e.problem}" for e in unknown]
    todo = [e for e in estimates if e.state != "finished" and not e.problem]
    unknown = [e for e in unknown if e.state != "finished"]
    sums = ["What is left to train has no estimate."] if unknown and not todo else _sums(todo, runs_dir, slots, card)
    models = {e.config.model for e in estimates}
    known = sorted(models & set(rates.measured))
    sources = [f"measured in finished runs for {', '.join(known)}"] if known else []
    if models - set(known):
        assumed = f"{rates.assumed / 1e12:.0f} TFLOP/s assumed"
        sources.append(f"{assumed} (an H100 at 40 % of its dense bf16 peak, unless told otherwise)")
    lines += ["", *sums, "", f"Hours: {'; '.join(sources)}; {_ASSUMED}"]
    return "\n".join(lines)


def _line(e: Estimate) -> list[str]:
    config = e.config
    changed = [f"{k}={v:g}" if isinstance(v, float) else f"{k}={v}" for k, v in config.changed_params.items()]
    usual = dataclasses.replace(filled(RunConfig(model=config.model, mixture=config.mixture)), select_on="test")
    chosen = [f.name for f in dataclasses.fields(config) if f.metadata["result"] and f.name not in (*_HEAD, "params")]
    changed += [f"{n}={getattr(config, n)}" for n in chosen if getattr(config, n) != getattr(usual, n)]
    cells = [config.method, Path(config.model).name, Path(config.mixture).stem, str(config.seed)]
    cells += [" ".join(changed) or "-", e.state]
    if e.problem:
        return cells + ["?"] * (len(_HEAD) - len(cells))
    case, stages = e.expected, sorted({e.least.stages, e.expected.stages, e.most.stages})
    least, most = (number_text(end.flops["total"]) for end in (e.least, e.most))
    cells.append(f"{case.stages} ({stages[0]} to {stages[-1]})" if len(stages) > 1 else str(case.stages))
    cells += [number_text(case.tokens), number_text(case.generations)]
    cells.append(flops_text(case.flops["total"]) + (f" ({least} to {most})" if e.least != e.most else ""))
    return [*cells, hours_text(case.seconds), bytes_text(sum(e.device.values())), bytes_text(e.disk_peak)]


def _sums(todo: Sequence[Estimate], runs_dir: str | Path, slots: int, card: float) -> list[str]:
    if not todo:
        return ["Nothing is left to train."]
    ends = ("expected", "least", "most")
    flops = [flops_text(sum(getattr(e, end).flops["total"] for e in todo)) for end in ends]
    hours = [hours_text(sum(getattr(e, end).seconds for e in todo)) for end in ends]
    tokens, answers = (sum(getattr(e.expected, key) for e in todo) for key in ("tokens", "generations"))
    needed, free = disk_needed(todo, slots), disk_free(runs_dir)
    lines = [
        f"Left to train: {len(todo)} runs, {number_text(tokens)} tokens, {number_text(answers)} generated answers",
        "  {} by appendix F ({} to {})".format(*flops),
        f"  {hours[0]} hours of one device" + f" ({hours[1]} to {hours[2]})" * (len(set(hours)) > 1),
        f"  disk: {bytes_text(needed)} at the peak with {slots} at a time, {bytes_text(sum(e.disk_mean for e in todo) / len(todo))} "
        f"of a run's state on average, {bytes_text(sum(e.disk_after for e in todo))} in the end; {bytes_text(free)} are free",
        f"  device memory: {bytes_text(max(sum(e.device.values()) for e in todo))} at most; "
        f"host memory for weights: {bytes_text(max(e.host for e in todo))} a run at most",
    ]
    if needed > free:
        lines.append(f"  WARNING: the disk lacks {bytes_text(needed - free)}: free space, or give another --runs-dir")
    large = {e.config.model: e for e in todo if sum(e.device.values()) > card * 1e9}
    for model, e in large.items():
        way = f"--token-budget {e.fitting_budget // 256 * 256}" if e.fitting_budget >= 1024 else "several GPUs (FSDP)"
        lines.append(f"  WARNING: {model} is estimated at more than a device of {card:g} GB holds; take {way}")
    return lines


def as_dict(e: Estimate) -> dict:
    """An estimate as plain values: FLOPs, tokens, seconds, bytes."""
    values = {"config": e.config.to_dict(), "state": e.state, "problem": e.problem or None}
    values["directory"] = str(e.run.directory) if e.run else None
    cases = {"least": e.least, "expected": e.expected, "most": e.most}
    values |= {name: case and dataclasses.asdict(case) for name, case in cases.items()}
    disk = {"mean": e.disk_mean, "peak": e.disk_peak, "after": e.disk_after}
    return values | {"device_bytes": e.device, "host_bytes": e.host, "disk_bytes": disk}
