"""What the paper's runs cost, estimated before anything is trained, and the commands that train them."""

import dataclasses
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from msft import RunConfig
from msft.cost import plan
from msft.cost.describe import table_text
from msft.cost.plan import UTILISATION
from msft.cost.rehearsal import rehearse
from msft.cost.sizes import sizes_of
from msft.cost.sizes import table as size_table
from msft.errors import DataError, ModelError, RunError
from msft.names import filled
from msft.results.flops import FORWARD, TRAIN, run_flops
from msft.results.run import load_runs
from paper_figures.reported_numbers import MODELS, claim, table
from paper_figures.style import METHODS

# embeddings included, tied ones once
PARAMETERS = {name: size_table()["models"][name]["parameters"] for name in MODELS}
# of a machine's matrix products, timed: training was measured at 0.8 on a CPU, decoding keeps it less busy
_SHARE = 0.6
_COLUMNS = {**METHODS, "msft": "mSFT (C=3)"}  # of Table 7


def estimate(config: RunConfig) -> plan.Estimate | None:
    """What a run is expected to cost on one H100 (msft.plan); None where its model or data is not known.

    SRO and Soft SRO read their search from the SFT run, whose time is counted there alone.
    """
    try:
        return plan.estimate(filled(config), plan.rates_of([]), has_search=True)
    except (DataError, ModelError, RunError):
        return None


def on_this_machine(configs: Iterable[RunConfig], runs_dir: str | Path) -> str:
    """One line: the runs still to train and the hours they take here, one after the other.

    From finished runs of the same model where there are some, else from this machine's matrix products, timed.
    """
    import torch
    from torch.utils.benchmark import Timer

    is_gpu = torch.cuda.is_available()
    side = 8192 if is_gpu else 1024
    square = torch.ones(side, side, device="cuda" if is_gpu else "cpu")
    timer = Timer("square @ square", globals={"square": square}, num_threads=torch.get_num_threads())
    peak = 2 * side**3 / timer.blocked_autorange(min_run_time=0.2).median / 1e12
    estimates = plan.plan(list(dict.fromkeys(configs)), runs_dir, plan.rates_of(load_runs(runs_dir), _SHARE, peak))
    todo = [e for e in estimates if e.state != "finished"]
    seconds, unknown = sum(e.expected.seconds for e in todo if e.expected), sum(not e.expected for e in todo)
    return (
        f"runs to train: {len(todo)}, {duration(seconds)} on this {'GPU' if is_gpu else 'CPU'}, at its measured rate or "
        f"{_SHARE:.0%} of its {peak:.2g} TFLOP/s" + (f"; {unknown} of them not in the estimate" if unknown else "")
    )


def duration(seconds: float) -> str:
    """Seconds as 'about 12 minutes' or 'about 3.4 hours'."""
    return f"about {seconds / 60:.0f} minutes" if seconds < 5400 else f"about {seconds / 3600:.1f} hours"


def flops(config: RunConfig) -> float | None:
    """FLOPs that a run is expected to take, as Table 7 counts them; None where they are not known."""
    found = estimate(config)
    return found.expected.flops["total"] if found else None


def implied_tokens(model: str) -> tuple[float, float]:
    """(tokens a train example, tokens an evaluated item) that Table 7 implies for one of its models.

    SFT's training part is DynamixSFT's surplus over the stated overhead; 18,000 examples for 10 epochs, 40 evaluations
    of 2,000 items.
    """
    row = table("table7").set_index("model").loc[MODELS[model]] * 1e15
    train = (row["DynamixSFT"] - row["SFT"]) / (claim("look-ahead overhead") / 100)
    items = FORWARD * PARAMETERS[model] * 2_000 * 40
    return train / (TRAIN * PARAMETERS[model] * 18_000 * 10), (row["SFT"] - train) / items


def against_table7(configs: Iterable[RunConfig]) -> pd.DataFrame:
    """Our estimates beside Table 7 in PFLOPs, one row a run that stands there: the paper's settings on its ten benchmarks.

    ours, ratio: with the tokens measured on the benchmarks.  at its tokens: with those that Table 7 implies, so that what
    is left of the difference is the method's; from, to: the least and the most that the method can take then.
    """
    reported, rows = table("table7").set_index("model"), []
    for config in configs:
        column = _COLUMNS.get(config.method)
        if column is None:
            continue
        plain = RunConfig(method=config.method, model=config.model, mixture="paper-10")
        if config.method == "msft" and config.params == {**plain.params, "budget": 1.0}:
            plain, column = dataclasses.replace(plain, params=config.params), "mSFT (C=1)"
        own = dataclasses.replace(config, data_dir=None, device=None, keep_peaks=plain.keep_peaks)
        if own != plain or config.model not in MODELS:
            continue
        theirs = reported.loc[MODELS[config.model], column]
        if pd.isna(theirs):
            continue
        sizes = sizes_of(config)
        ways = {name: way.entries for name, way in rehearse(filled(config), sizes.sets).items()}
        ours = {name: run_flops(way, sizes.parameters, config.method) for name, way in ways.items()}
        train, item = implied_tokens(config.model)
        train /= sum(s.tokens for s in sizes.sets) / len(sizes.sets)
        item /= sum(s.item_tokens for s in sizes.sets) / len(sizes.sets)
        same = [((f["train"] + f["look_ahead"]) * train + f["evaluate"] * item) / 1e15 for f in ours.values()]
        expected, least, most = ours["expected"]["total"] / 1e15, min(same), max(same)
        if config.method == "ies":  # the paper may count nothing for examples that sit out; here a forward pass each
            resting = max(entry["result"]["forward_tokens"] for way in ways.values() for entry in way)
            least -= FORWARD * sizes.parameters * resting * train / 1e15
        row = {"model": MODELS[config.model], "method": column, "ours": expected, "paper": theirs}
        row |= {"ratio": expected / theirs, "at its tokens": same[0], "from": least, "to": most}
        rows.append(row | {"why": _why(theirs, same[0], least, most, config.method)})
    return pd.DataFrame(rows)


def _why(theirs: float, expected: float, least: float, most: float, method: str) -> str:
    """What is left of the difference once the tokens are the same; 6 % for answers of other lengths than those of SFT."""
    if abs(expected / theirs - 1) <= 0.06:
        return "token counts"
    if 0.94 * least <= theirs <= 1.06 * most:
        free = {"msft": "which is dropped when", "ies": "how many sit out, and whether that is free"}
        return free.get(method, "where the peaks lie")
    return "below" if theirs < least else "above"


def what_is_missing(configs: Iterable[RunConfig], needed: int, runs_dir: str | Path, why: str) -> str:
    """One message: how many runs are missing, the commands that train them, and what they are estimated to cost."""
    configs = list(dict.fromkeys(configs))
    known = [found for found in map(estimate, configs) if found]
    total = sum(found.expected.flops["total"] for found in known)
    hours = sum(found.expected.seconds for found in known) / 3600
    unknown = len(configs) - len(known)
    return "\n".join(
        [
            f"{len(configs)} of {needed} runs are not in {runs_dir}, and they are not trained here: {why}.",
            "On a machine with a GPU and the data, this notebook trains them itself, and so do these commands:",
            *(f"    {config.command_line(runs_dir=runs_dir)}" for config in configs),
            f"Estimated cost: {total / 1e15:,.0f} PFLOPs, about {hours:,.1f} hours of one H100 at {UTILISATION:.0%} of its "
            "dense bf16 peak (evaluation counted by appendix F, without the shared prompts)"
            + (f"; {unknown} runs of other models, mixtures or methods are not in the estimate." if unknown else "."),
            "To train on a CPU all the same, pass allow_cpu=True with sizes cut by `settings`.",
        ]
    )


def table7_text(rows: pd.DataFrame) -> str:
    """`against_table7` as text, with what is left of each difference."""
    head = ("model", "method", "ours", "paper", "ours/paper", "at its tokens (least to most)", "ratio", "what is left")
    lines = [head]
    for row in rows.to_dict("records"):
        span = f"{row['at its tokens']:.0f} ({row['from']:.0f} to {row['to']:.0f})"
        same = f"{row['at its tokens'] / row['paper']:.2f}"
        cells = (f"{row['ours']:.0f}", f"{row['paper']:.0f}", f"{row['ratio']:.2f}", span, same)
        lines.append((row["model"], row["method"], *cells, row["why"]))
    explained = (~rows.why.isin(["above", "below"])).sum()
    return "\n".join(
        [
            "PFLOP beside Table 7: ours with the tokens of the benchmarks, and with the tokens that Table 7 itself implies for "
            "an example and for an evaluated item (answers of the paper's models are longer).",
            table_text(lines),
            f"{explained} of {len(rows)} numbers of Table 7 lie within 6 % of what the method can take at those tokens.",
        ]
    )


if __name__ == "__main__":
    from msft.launch.grid import read_grid

    print(table7_text(against_table7(read_grid("paper").runs)))
