"""The tiny mixture as an instrument: can it see over-fitting under plain SFT, on every base model?

    python benchmarks/calibration.py            # five seeds of SFT on each base model: each bar and its figure
    python benchmarks/calibration.py --mixture tiny-5 tiny-15 tiny-21    # the same of the others: calibration_mixtures.{json,md}
    python benchmarks/calibration.py --rates    # SFT at four learning rates, three seeds: how the rates were chosen

Nothing here trains mSFT or any other method. Peaks are chosen on the validation items and measured on the test items,
so that no figure is a maximum of noise. Writes calibration.{json,md} or learning_rate.{json,md}; finished runs are read.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import pandas as pd
from recording import RESULTS, command, heading, measured_with, write

from msft import RunConfig
from msft.launch.local import run_all
from paper_figures.findings import icc

MODELS = ("tiny-qwen2", "tiny-qwen3", "tiny-olmo2")
SEEDS = (20, 30, 40, 50, 60)
RATES = (2e-4, 4e-4, 8e-4, 16e-4)


def train(jobs: list[dict], runs_dir: str, processes: int) -> list:
    """The finished runs of these settings."""
    return run_all([RunConfig(**job) for job in jobs], runs_dir, slots=processes)


def curves(run, column: str = "accuracy") -> pd.DataFrame:
    """Percentages by epoch (rows) and sub-dataset (columns)."""
    return 100 * run.history.pivot(index="epoch", columns="task", values=column)[list(run.metrics)]


def chance(row) -> float:
    """The percentage that guessing reaches on a row of the tiny table."""
    from paper_figures.instrument.skills import VALUES

    if row.style == "open":
        return 100 / len(VALUES[row.topic][1])
    if row.style == "rationale" and row.skill != "sum_choice":
        return 0.0  # a number of its own
    return 50.0 if row.style == "true/false" else 100 / row.options


def jitter(curve: pd.DataFrame, start: float = 3) -> pd.Series:
    """Mean absolute change between neighbouring evaluations from an epoch on, in points."""
    return curve[curve.index >= start].diff().abs().mean()


def by_task(runs: list) -> pd.DataFrame:
    """One row a sub-dataset, means over the runs: base, peak and its epoch, last value, jitter."""
    curve = sum(curves(run) for run in runs) / len(runs)
    chosen = sum(curves(run, "selection") for run in runs) / len(runs)
    at = chosen.idxmax()
    peak = pd.Series({task: curve[task][at[task]] for task in curve})
    late = curve[curve.index > 6]
    return pd.DataFrame(
        {
            "base": curve.iloc[0],
            "peak": peak,
            "peak epoch": at,
            "last": curve.iloc[-1],
            "lost": peak - curve.iloc[-1],
            "risen after epoch 6": late.max() - curve[curve.index <= 6].max() if len(late) else float("nan"),
            "jitter": sum(jitter(curves(run)) for run in runs) / len(runs),
            "before epoch 1": curve[curve.index < 1].max(),
        }
    )


def headroom(run) -> float:
    """Mean of the sub-datasets' own peaks minus the best of the mean, in points; epochs from the validation items."""
    curve, chosen = curves(run), curves(run, "selection")
    own = pd.Series({task: curve[task][chosen[task].idxmax()] for task in curve}).mean()
    return float(own - curve.mean(axis=1)[chosen.mean(axis=1).idxmax()])


def without_shots(run) -> dict[str, float]:
    """Accuracies (%) of the reported checkpoint, answering the test items with five shots and with none."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from msft.evaluation import Evaluator
    from msft.tiny import make_mixture

    model = AutoModelForCausalLM.from_pretrained(run.best.path, dtype="float32").eval()
    tokenizer = AutoTokenizer.from_pretrained(run.best.path)
    found = {}
    for name, shots in (("five shots", True), ("no shots", False)):
        subs = [sub if shots else replace(sub, shots=[]) for sub in make_mixture(run.config.mixture)]
        scores = Evaluator(
            model, tokenizer, subs, "test", run.config.max_new_tokens, run.config.eval_batch_size
        ).evaluate()
        found[name] = 100 * sum(score.accuracy for score in scores.values()) / len(scores)
    return found


def bars(runs: list, shots: dict[str, float]) -> list[dict]:
    """Every bar with its figure: what, bar, measured, met."""
    from paper_figures.instrument.mixtures import rows_of

    table = by_task(runs)
    above = table.peak - pd.Series({row.name: chance(row) for row in rows_of(runs[0].config.mixture)})
    early = table[(table["peak epoch"] < 6) & (table.lost >= 6)]
    late = table[table["risen after epoch 6"] > 0]
    peaks = pd.concat([curves(run, "selection").idxmax() for run in runs], axis=1)
    mean_jitter = sum(jitter(curves(run).mean(axis=1).to_frame()).iloc[0] for run in runs) / len(runs)
    n, difference = len(table), abs(shots["five shots"] - shots["no shots"])
    room = sum(map(headroom, runs)) / len(runs)
    rows = [
        ("jitter of a sub-dataset (points)", "at most 3", table.jitter.mean(), table.jitter.mean() <= 3),
        ("jitter of the mean (points)", "at most 1", mean_jitter, mean_jitter <= 1),
        (f"lowest peak above chance ({above.idxmin()})", "at least 15", above.min(), above.min() >= 15),
        (
            f"highest before epoch 1 ({table['before epoch 1'].idxmax()}, %)",
            "at most 97",
            table["before epoch 1"].max(),
            table["before epoch 1"].max() <= 97,
        ),
        ("headroom (points)", "at least 6", room, room >= 6),
        ("peak before epoch 6 and lose 6 points", f"at least {n / 2:g}", len(early), len(early) >= n / 2),
        ("still rise after epoch 6", "at least 3", len(late), len(late) >= 3),
        ("ICC of the peaks over seeds", "at least 0.7", icc(peaks), icc(peaks) >= 0.7),
        ("five shots against none (points)", "at most 5", difference, difference <= 5),
    ]
    return [{"what": w, "bar": bar, "measured": float(m), "met": bool(met)} for w, bar, m, met in rows]


def markdown(result: dict) -> str:
    lines = ["# Tiny mixtures under SFT", "", heading(result), ""]
    seeds = ", ".join(map(str, result["seeds"]))
    lines += [f"Means of seeds {seeds}; peaks chosen on validation items, measured on test items."]
    for key, found in result["bases"].items():
        lines += ["", f"## {key}, learning rate {found['learning_rate']:g}, best of SFT {found['best']:.1f} %", ""]
        lines += ["| what | bar | measured | |", "|---|---|---|---|"]
        lines += [
            f"| {row['what']} | {row['bar']} | {row['measured']:.2f} | {'met' if row['met'] else '**not met**'} |"
            for row in found["bars"]
        ]
        columns = list(found["sub_datasets"][0])
        lines += ["", f"| {' | '.join(columns)} |", "|" + "---|" * len(columns)]
        for row in found["sub_datasets"]:
            lines.append("| " + " | ".join(v if isinstance(v, str) else f"{v:.2f}" for v in row.values()) + " |")
    return "\n".join(lines) + "\n"


def calibrate(options) -> None:
    pairs = [(model, mixture) for mixture in options.mixture for model in options.model]
    base = {"method": "sft", "select_on": "validation"}
    jobs = [{**base, "model": m, "mixture": x, "seed": seed} for m, x in pairs for seed in options.seeds]
    runs = train(jobs, options.runs, options.processes)
    bases = {}
    for number, (model, mixture) in enumerate(pairs):
        own = runs[number * len(options.seeds) :][: len(options.seeds)]
        shots = pd.DataFrame([without_shots(run) for run in own]).mean().to_dict()
        found = {
            "learning_rate": own[0].config.learning_rate,
            "best": 100 * sum(r.best.accuracy for r in own) / len(own),
        }
        found |= {"bars": bars(own, shots), "shots": shots}
        found["sub_datasets"] = by_task(own).rename_axis("sub-dataset").reset_index().to_dict("records")
        bases[model if mixture == "tiny" else f"{model}, {mixture}"] = found
    told = command("calibration.py", options, model=list(MODELS), mixture=["tiny"], seeds=list(SEEDS))
    result = {"command": told, **measured_with("msft", "torch", "transformers")}
    result |= {"commit": runs[0].about["git_commit"], "seeds": options.seeds, "bases": bases}
    name = "calibration" if options.mixture == ["tiny"] else "calibration_mixtures"
    write(options.results, name, result, markdown(result))


def rates(options) -> None:
    from paper_figures.instrument.bases import identity

    keys = [(model, rate) for model in options.model for rate in RATES]
    jobs = [
        {"method": "sft", "model": model, "learning_rate": rate, "seed": seed}
        for model, rate in keys
        for seed in options.seeds[:3]
    ]
    runs = train(jobs, options.runs, options.processes)
    table = pd.DataFrame(
        [{**job, "best": 100 * run.best.accuracy} for job, run in zip(jobs, runs, strict=True)]
    ).pivot_table(index="model", columns="learning_rate", values="best", sort=False)
    told = command("calibration.py", options, rates=False, model=list(MODELS), seeds=list(SEEDS))
    result = {"command": told, **measured_with("msft", "torch", "transformers")}
    result |= {"seeds": options.seeds[:3], "bases": {model: identity(model) for model in options.model}}
    result["best of SFT (%)"] = {model: {f"{rate:g}": v for rate, v in row.items()} for model, row in table.iterrows()}
    lines = ["# The learning rate of the tiny bases, chosen for plain SFT", "", heading(result), ""]
    lines += [f"Best mean accuracy (%) of SFT, mean of seeds {', '.join(map(str, options.seeds[:3]))}.", ""]
    lines += [f"| base | {' | '.join(f'{rate:g}' for rate in table)} |", "|" + "---|" * (len(table.columns) + 1)]
    lines += [f"| {model} | {' | '.join(f'{value:.1f}' for value in row)} |" for model, row in table.iterrows()]
    write(options.results, "learning_rate", result, "\n".join(lines) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", default="runs")
    parser.add_argument("--model", nargs="+", default=list(MODELS))
    parser.add_argument("--mixture", nargs="+", default=["tiny"])
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--rates", action="store_true")
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    (rates if options.rates else calibrate)(options)


if __name__ == "__main__":
    main()
