"""A plan as text: a line a run, the sums of what is not finished, warnings, and what was assumed."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from msft.config import RunConfig
from msft.cost.plan import CARD, Estimate, Rates, disk_free, disk_needed


def number_text(value: float, unit: str, scales: str = " KMGTPEZ", base: float = 1000.0) -> str:
    """A number with a decimal prefix and its unit: 1.2 GB."""
    place = 0
    while abs(value) >= base and place < len(scales) - 1:
        value, place = value / base, place + 1
    digits = f"{value:.1f}" if place and value < 10 else f"{value:.0f}"
    return f"{digits} {scales[place].strip()}{unit}"


def bytes_text(value: float) -> str:
    """Bytes, decimal."""
    return number_text(value, "B")


def flops_text(value: float) -> str:
    """FLOPs, decimal."""
    return number_text(value, "FLOP")


def table_text(rows: Sequence[Sequence[str]]) -> str:
    """Aligned columns; the first row is the head."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def report(
    estimates: Sequence[Estimate], runs_dir: str | Path, rates: Rates, slots: int = 1, card: float = CARD
) -> str:
    """The plan as text: a line a run, the sums of what is not finished, disk, memory, and what was assumed."""
    states = {
        state: sum(e.state == state for e in estimates) for state in ("finished", "running", "failed", "unfinished")
    }
    states["missing"] = len(estimates) - sum(states.values())
    words = {"unfinished": "resumable", "failed": "failed (resumable)"}
    counted = ", ".join(
        f"{count} {words.get(state, state)}"
        for state, count in states.items()
        if count or state in ("finished", "missing")
    )
    head = (
        "method",
        "model",
        "mixture",
        "seed",
        "settings",
        "state",
        "stages",
        "tokens",
        "answers",
        "FLOPs (least to most)",
    )
    head += ("hours", "memory", "disk")
    lines = [
        f"{len(estimates)} run{'s' * (len(estimates) != 1)} in {runs_dir}: {counted}",
        "",
        table_text([head, *map(_line, estimates)]),
    ]
    unknown = [e for e in estimates if e.problem]
    lines += [f"{e.config.method} {e.config.model} {e.config.mixture}: no estimate: {e.problem}" for e in unknown]
    todo = [e for e in estimates if e.state != "finished" and not e.problem]
    return "\n".join([*lines, "", *_sums(todo, runs_dir, slots, card), *_assumptions(estimates, rates)])


def _line(e: Estimate) -> tuple[str, ...]:
    config = e.config
    changed = [f"{k}={v:g}" if isinstance(v, float) else f"{k}={v}" for k, v in config.changed_params.items()]
    changed += [f"select_on={config.select_on}"] if config.select_on != RunConfig.select_on else []
    name = (
        config.method,
        Path(config.model).name,
        Path(config.mixture).stem,
        str(config.seed),
        " ".join(changed) or "-",
        e.state,
    )
    if e.problem:
        return (*name, *["?"] * 7)
    least, case, most = e.least, e.expected, e.most
    stages = str(case.stages) if least.stages == most.stages == case.stages else f"{case.stages} ({_span(e)})"
    span = (
        ""
        if least == most
        else f" ({number_text(least.flops['total'], '').strip()} to {number_text(most.flops['total'], '')})"
    )
    cells = (
        stages,
        number_text(case.tokens, ""),
        number_text(case.generations, ""),
        flops_text(case.flops["total"]) + span,
    )
    return (*name, *cells, f"{case.seconds / 3600:.3g}", bytes_text(sum(e.device.values())), bytes_text(e.disk_peak))


def _span(e: Estimate) -> str:
    stages = sorted({e.least.stages, e.expected.stages, e.most.stages})
    return f"{stages[0]} to {stages[-1]}"


def _sums(todo: Sequence[Estimate], runs_dir: str | Path, slots: int, card: float) -> list[str]:
    if not todo:
        return ["Nothing is left to train."]
    cases = {name: [getattr(e, name) for e in todo] for name in ("least", "expected", "most")}
    flops = {name: sum(case.flops["total"] for case in found) for name, found in cases.items()}
    hours = {name: sum(case.seconds for case in found) / 3600 for name, found in cases.items()}
    tokens, answers = (sum(getattr(case, key) for case in cases["expected"]) for key in ("tokens", "generations"))
    needed, free = disk_needed(todo, slots), disk_free(runs_dir)
    lines = [
        f"Left to train: {len(todo)} runs, {number_text(tokens, '')} tokens, {number_text(answers, '')} generated answers",
        f"  {flops_text(flops['expected'])} by appendix F ({flops_text(flops['least'])} to {flops_text(flops['most'])})",
        f"  {hours['expected']:.3g} hours of one device ({hours['least']:.3g} to {hours['most']:.3g})",
        f"  disk: {bytes_text(needed)} at the peak with {slots} at a time, {bytes_text(sum(e.disk_mean for e in todo) / len(todo))} "
        f"of a run's state on average, {bytes_text(sum(e.disk_after for e in todo))} in the end; {bytes_text(free)} are free",
        f"  device memory: {bytes_text(max(sum(e.device.values()) for e in todo))} at most; "
        f"host memory for weights: {bytes_text(max(e.host for e in todo))} a run at most",
    ]
    if needed > free:
        lines.append(
            f"  WARNING: the disk is too small by {bytes_text(needed - free)}: free space, or give another --runs-dir"
        )
    large: dict = {}
    for e in todo:
        if sum(e.device.values()) > card * 1e9:
            large[e.config.model] = e
    for model, e in large.items():
        way = f"--token-budget {e.fitting_budget // 256 * 256}" if e.fitting_budget >= 1024 else "several GPUs (FSDP)"
        lines.append(f"  WARNING: {model} is estimated at more than a device of {card:g} GB holds; take {way}")
    return lines


def _assumptions(estimates: Sequence[Estimate], rates: Rates) -> list[str]:
    models = {e.config.model for e in estimates}
    known = sorted(models & set(rates.measured))
    told = [f"measured in finished runs for {', '.join(known)}"] if known else []
    if models - set(known):
        told.append(
            f"{rates.assumed / 1e12:.0f} TFLOP/s assumed (an H100 at 40 % of its dense bf16 peak, unless told otherwise)"
        )
    return [
        "",
        f"Hours: {'; '.join(told)}; training and evaluation really computed, of all sub-datasets; decoding keeps a GPU less busy.",
        "Expected: one sub-dataset over-fits in every stage, peaks lie evenly over the length of SFT. Least and most: all peak "
        "at once, or nobody before the method's own limit; the heaviest or the lightest sub-dataset is dropped first.",
        "Memory: weights, gradients, Adam and the activations of one full batch, without the libraries' own. Disk: of a "
        "run's checkpoints at the peak, files as small as measured (benchmarks/results/storage.md). Answers as long as the "
        "right ones. Unfinished runs are counted whole.",
    ]


def as_dict(e: Estimate) -> dict:
    """An estimate as plain values: FLOPs, tokens, seconds, bytes."""
    plain = {"config": e.config.to_dict(), "state": e.state, "problem": e.problem or None}
    plain |= {"directory": str(e.run.directory) if e.run else None}
    for name in ("least", "expected", "most"):
        case = getattr(e, name)
        plain[name] = dataclasses.asdict(case) if case else None
    plain |= {"device_bytes": e.device, "host_bytes": e.host}
    return plain | {"disk_bytes": {"mean": e.disk_mean, "peak": e.disk_peak, "after": e.disk_after}}
