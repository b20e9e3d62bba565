"""What explains mSFT: drops without a step at C = 1, the drift after an exclusion, and the conflict of gradients.

    python benchmarks/explain.py            # half an hour on two cores; goes on where it was stopped

C = 1: mSFT as the paper has it, whose start point counts, against a form in which nobody is dropped without a step
(methods/trained_first.py), both paired with SFT by seed. Drift: the bifurcation with the distance of its branches'
weights (Eq. 2, 3) beside that of two branches that differ in the order alone, and the cosines of the sub-datasets'
gradients (methods/drift.py). Writes explain.{json,md}.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from evidence import MODELS, accuracies, interval, paired, seeds, verdict
from recording import RESULTS, command, heading, measured_with, write

from msft import RunConfig
from msft.launch.local import run_all
from paper_figures.findings import mean

METHODS_DIR = str(Path(__file__).parent / "methods")
SEEDS = (5, 3)  # at C = 1 on the first model, of the drift on every model
VARIANTS = {"SFT": ("sft", {}), "mSFT, C = 1": ("msft", {"budget": 1.0})}
VARIANTS["the same, none dropped without a step"] = ("trained_first", {"budget": 1.0})


def without_a_step(run) -> int:
    """How many sub-datasets were dropped at the start point of a stage."""
    return sum(e["arguments"]["epoch"] == 0 for e in run.journal if e["kind"] == "roll_back")


def at_budget_one(runs: dict[tuple[str, int], object]) -> list[dict]:
    """A row a variant: accuracy, drops without a step, difference to SFT on test and on confirmation items."""
    found = pd.DataFrame(
        [
            {"name": name, "seed": seed, "dropped": without_a_step(run), **accuracies(run)}
            for (name, seed), run in runs.items()
        ]
    ).set_index("seed")
    sft, rows = found[found["name"] == "SFT"], []
    for name in VARIANTS:
        own = found[found["name"] == name]
        for items in [column for column in ("test", "confirmed") if column in own]:
            row = {"variant": name, "items": items, "accuracy": own[items].mean(), "dropped": own.dropped.mean()}
            rows.append(row | ({} if name == "SFT" else paired(own[items], sft[items])))
    return rows


def notes(run, what: str) -> list[dict]:
    """The notes of a kind that a run's journal holds."""
    return [e["arguments"] for e in run.journal if e["kind"] == "note" and e["arguments"]["what"] == what]


def inside(runs: list) -> dict:
    """{"drift": {branch: [runs, epochs]}, "pairs": {where: [runs, pairs]}, "first_with_rest": {where: [runs]}, "first"}."""
    drift = {name: [] for name in ("reduced", "other order")}
    pairs, rest = {}, {}
    for run in runs:
        for note in notes(run, "drift"):
            drift[note["branch"]].append(note["share_of_way"])
        for note in notes(run, "gradients"):
            pairs.setdefault(note["where"], []).append(note["pairs"])
            rest.setdefault(note["where"], []).append(note["first_with_rest"])
    first = [(note["first"], note["epoch"]) for run in runs for note in notes(run, "fork")]
    return {"drift": drift, "pairs": pairs, "first_with_rest": rest, "first": first}


def farther(result: dict) -> np.ndarray:
    """The last distance of each fork's reduced branch less that of the branch in another order, over all models."""
    ends = [
        [np.array(found["drift"][b])[:, -1] for b in ("reduced", "other order")] for found in result["inside"].values()
    ]
    return np.concatenate([reduced - other for reduced, other in ends])


def markdown(result: dict) -> str:
    lines = ["# What explains mSFT", "", heading(result), "", f"## C = 1, {result['model']}", ""]
    lines += [
        "| | items | accuracy (%) | dropped without a step | minus SFT (points), 95 % interval, n | |",
        "|---|---|---|---|---|---|",
    ]
    for row in result["budget one"]:
        cells = [row["variant"], row["items"], f"{row['accuracy']:.1f}", f"{row['dropped']:.1f}"]
        cells += ["", ""] if row["variant"] == "SFT" else [interval(row), verdict(row)]
        lines.append("| " + " | ".join(cells) + " |")
    lines += ["", "## Drift after an exclusion (Eq. 2, 3)", ""]
    lines += [
        "Distance of a branch's weights from the full branch's, as a share of the way that the full branch has gone since the fork; mean and 95 % interval over runs.",
        "",
    ]
    epochs = len(next(iter(result["inside"].values()))["drift"]["reduced"][0])
    shown = sorted({1, epochs // 2, epochs} - {0})
    lines += [
        "| base model | first to over-fit (epoch), by seed | branch | "
        + " | ".join(f"after {e} epoch{'s' * (e != 1)}" for e in shown)
        + " |"
    ]
    lines += ["|---|---|---|" + "---|" * len(shown)]
    names = {"reduced": "without it", "other order": "with it, in another order"}
    for model, found in result["inside"].items():
        first = ", ".join(f"{task} ({epoch:g})" for task, epoch in found["first"])
        for branch, title in names.items():
            values = np.array(found["drift"][branch])  # [runs, epochs]
            lines.append("| " + " | ".join([model, first, title, *(mean(values[:, e - 1], 2) for e in shown)]) + " |")
    more = farther(result)
    said = (
        f"How much farther the branch without it lies after {epochs} epochs, paired over all forks (n = {len(more)}): "
    )
    lines += ["", f"{said}{mean(more, 2, signed=True)}."]
    lines += ["", "## Cosines of the sub-datasets' gradients", ""]
    lines += ["Over all training examples of each; negative: a step for one raises the loss of the other.", ""]
    lines += [
        "| base model | where | mean of all pairs | negative pairs | the first to over-fit with the sum of the others |",
        "|---|---|---|---|---|",
    ]
    for model, found in result["inside"].items():
        for where, pairs in found["pairs"].items():
            values = np.array(pairs)  # [runs, pairs]
            rest = found["first_with_rest"][where]
            cells = [mean(values.mean(axis=1), 2), f"{(values < 0).mean():.0%}", "" if None in rest else mean(rest, 2)]
            lines.append(f"| {model} | {where} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", default="runs")
    parser.add_argument("--model", nargs="+", default=list(MODELS))
    parser.add_argument("--mixture", default="tiny")
    parser.add_argument("--seeds", type=int, nargs=2, default=list(SEEDS), help="at C = 1, of the drift")
    parser.add_argument("--branch", type=float, default=6.0, help="epochs of each branch")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    jobs = {}
    for name, (method, params) in VARIANTS.items():
        own = {"methods_dir": METHODS_DIR} if method == "trained_first" else {}
        for seed in seeds(options.seeds[0]):
            settings = {"model": options.model[0], "mixture": options.mixture, "seed": seed, **own}
            jobs["C = 1", name, seed] = RunConfig(method=method, params=params, **settings)
    for model in options.model:
        for seed in seeds(options.seeds[1]):
            settings = {"model": model, "mixture": options.mixture, "seed": seed, "methods_dir": METHODS_DIR}
            jobs["drift", model, seed] = RunConfig(method="drift", params={"branch": options.branch}, **settings)
    runs = dict(zip(jobs, run_all(list(jobs.values()), options.runs, slots=options.processes), strict=True))
    result = {
        "command": command("explain.py", options, model=list(MODELS), mixture="tiny", seeds=list(SEEDS), branch=6.0),
        **measured_with("msft", "torch", "transformers"),
        "model": options.model[0],
        "budget one": at_budget_one({key[1:]: run for key, run in runs.items() if key[0] == "C = 1"}),
        "inside": {
            model: inside([run for key, run in runs.items() if key[:2] == ("drift", model)]) for model in options.model
        },
    }
    write(options.results, "explain", result, markdown(result))


if __name__ == "__main__":
    main()
