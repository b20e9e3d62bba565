"""What the methods do on the tiny mixture: paired over seeds, chosen on test items and confirmed on fresh ones.

    make evidence                                  # an hour on two cores; says how long before, and goes on where it was
    python benchmarks/evidence.py --model tiny-qwen2 --mixture tiny-21 --seeds 5 5 0    # another mixture: evidence_tiny-21.*
    python benchmarks/evidence.py --model tiny-qwen2 --mixture tiny-21-equal --seeds 5 5 0    # tiny-21, all sub-datasets of one size
    python benchmarks/evidence.py --model tiny-smoke --mixture tiny-smoke --seeds 2 2 2 --results runs/check   # a check

SFT and mSFT with 30 seeds on the first base model, so that the interval of their difference reaches a point to each side
at most, and with 8 on each of the others; all seven methods with 5 seeds on the first. Differences are paired by seed,
since a seed is one order of the data. Writes evidence.{json,md}, and for the default mixture README's table.
"""

import argparse
import json
from math import comb, isnan
from pathlib import Path

import pandas as pd
from recording import RESULTS, command, heading, measured_with, write

from msft import tiny
from paper_figures.figures.seeds import paired_t
from paper_figures.findings import half_width
from paper_figures.instrument.mixtures import generated

MODELS = ("tiny-qwen2", "tiny-qwen3", "tiny-olmo2")
SEEDS = (30, 8, 5)  # on the first model, on each of the others, of each of the seven methods
FIRST_SEED, BETWEEN = 20, 10
README, MARK = RESULTS.parents[1] / "README.md", "<!-- benchmarks/evidence.py -->"
# name in the tables -> (method, its parameters), in Table 2's order. DynamixSFT's look-ahead batch is scaled down with
# the batch size and the mixture, its sharpness is its paper's for the smallest model.
METHODS = {
    "SFT": ("sft", {}),
    "Continual SFT": ("continual_sft", {}),
    "DynamixSFT": ("dynamix_sft", {"look_ahead_batch": 8}),
    "IES": ("ies", {}),
    "SRO SFT": ("sro_sft", {}),
    "Soft SRO SFT": ("soft_sro_sft", {}),
    "mSFT": ("msft", {}),
}


def seeds(n: int) -> list[int]:
    """The first n seeds."""
    return [FIRST_SEED + BETWEEN * i for i in range(n)]


def wanted(models: list[str], mixture: str, sizes: tuple[int, int, int]) -> list[dict]:
    """Settings of every run, each once."""
    first, others, all_methods = sizes
    keys = [(models[0], name, seed) for name in METHODS for seed in seeds(all_methods)]
    for model in models:
        n = first if model == models[0] else others
        keys += [(model, name, seed) for seed in seeds(n) for name in ("SFT", "mSFT")]
    return [{"model": model, "mixture": mixture, "name": name, "seed": s} for model, name, s in dict.fromkeys(keys)]


def mixture_of(name: str, runs_dir: str) -> str:
    """What RunConfig takes for a mixture: the name of an embedded one, else the file of a generated one, written here."""
    if name in tiny.MIXTURES:
        return name
    folder, subs = Path(runs_dir) / name, []
    for sub in generated(name):
        subs.append({"name": sub.name, "group": sub.group})
        for part in ("train", "test", "confirmation", "shots"):  # validation items would choose in place of test items
            rows = [json.dumps({"question": e.question, "answer": e.answer}) + "\n" for e in getattr(sub, part)]
            subs[-1][part] = f"{sub.name}/{part}.jsonl"
            (folder / sub.name).mkdir(parents=True, exist_ok=True)
            (folder / subs[-1][part]).write_text("".join(rows), encoding="utf-8")
    file = folder / f"{name}.yaml"
    file.write_text(json.dumps({"name": name, "sub_datasets": subs}, indent=1), encoding="utf-8")
    return str(file)


def minutes_before(missing: list[dict], known: dict[str, float], processes: int) -> float | None:
    """Minutes that the missing runs will take, from the mean seconds of each method's runs; None where none is known."""
    if not known:
        return None
    usual = sum(known.values()) / len(known)
    return sum(known.get(job["name"], usual) for job in missing) / processes / 60


def accuracies(run) -> dict[str, float]:
    """Percentages of the reported checkpoint: on the test items, and on the confirmation items where there are some."""
    table = run.confirmation
    # both weigh sub-datasets alike: what the paper's tables average
    test = {"test": 100 * run.at_best.accuracy.mean()}
    return test | ({"confirmed": 100 * table.best.mean()} if len(table) else {})


def facts(run) -> dict:
    """All that the tables take from a finished run."""
    counted = {"evaluations": evaluations(run), "flops": run.flops["total"], "seconds": run.result["seconds"]["total"]}
    return {**accuracies(run), **counted, "commit": run.about["git_commit"]}


def measured_before(path: Path, machine: str) -> dict[str, dict]:
    """{run's name: its facts} from a result of this kind of machine, so that it is added to where its runs are gone.

    A run's name carries the hash of all that determines its result but the processor.
    """
    result = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    rows = [row for row in result.get("runs", []) if "run" in row]
    if rows and result["machine"] != machine:
        print(f"{len(rows)} runs in {path} are of {result['machine']}, this is {machine}: not taken over", flush=True)
        return {}
    return {row["run"]: row for row in rows}


def paired(values: pd.Series, sft: pd.Series) -> dict[str, float]:
    """Mean difference of runs with the same seeds, its 95 % t interval, and the p value of the paired t test.

    Without two pairs there is no interval, and no p where all differences are equal: NaN.
    """
    both = pd.concat([values, sft], axis=1, keys=["values", "sft"]).dropna()
    difference, n = both["values"] - both["sft"], len(both)
    mean, half, (_, p) = float(difference.mean()), half_width(difference), paired_t(difference)
    return {"n": n, "mean": mean, "low": mean - half, "high": mean + half, "p": p}


def interval(row: dict[str, float]) -> str:
    """A paired difference as a table says it."""
    return f"{difference(row, 2)}, {row['n']:.0f}"


def difference(row: dict[str, float], decimals: int) -> str:
    """A mean difference with its interval, where there is one."""
    span = "no interval" if isnan(row["low"]) else f"{row['low']:+.{decimals}f} to {row['high']:+.{decimals}f}"
    return f"{row['mean']:+.{decimals}f} ({span})"


def verdict(row: dict[str, float]) -> str:
    """What an interval says."""
    return "ahead of SFT" if row["low"] > 0 else "behind SFT" if row["high"] < 0 else "cannot tell"


def expected_best(values: list[float], k: int) -> float:
    """Expected largest of k values drawn without replacement."""
    ordered, n = sorted(values), len(values)
    k = min(k, n)
    return sum(value * comb(i, k - 1) for i, value in enumerate(ordered)) / comb(n, k)


def evaluations(run) -> list[float]:
    """Mean accuracy (%) at every evaluation that the reported checkpoint was chosen among, each once."""
    history = run.history
    # a later stage starts at weights that were measured before
    made = history[(history.stage == 0) | (history.epoch > 0)]
    return (100 * made.groupby(["stage", "epoch"]).accuracy.mean()).tolist()


def fair_draws(table: pd.DataFrame) -> pd.DataFrame:
    """mSFT against SFT when both choose among as many evaluations, and at equal FLOPs; on the test items, paired by seed.

    equal draws: mSFT's expected best of as many of its evaluations as SFT has.
    equal FLOPs: SFT's expected best of k runs, k = mSFT's FLOPs over SFT's, between its neighbours where k is broken.
    """
    rows = []
    for model, runs in table.groupby("model", sort=False):
        sft, msft = (runs[runs["name"] == name].set_index("seed") for name in ("SFT", "mSFT"))
        best_sft, best_msft = (kind.evaluations.map(max) for kind in (sft, msft))
        draws = sft.evaluations.map(len)
        drawn = {seed: expected_best(values, draws[seed]) for seed, values in msft.evaluations.items()}
        k = (msft.flops / sft.flops).mean()
        low, rest = int(k), k - int(k)
        of_k = (1 - rest) * expected_best(list(best_sft), low) + rest * expected_best(list(best_sft), low + 1)
        rows.append(
            {
                "model": model,
                "SFT": best_sft.mean(),
                "mSFT": best_msft.mean(),
                "mSFT minus SFT, 95 % interval, n": interval(paired(best_msft, best_sft)),
                "the same, equal draws": interval(paired(pd.Series(drawn), best_sft)),
                "SFT, equal FLOPs": of_k,
                "FLOPs, mSFT over SFT": k,
            }
        )
    return pd.DataFrame(rows)


def compared(table: pd.DataFrame) -> pd.DataFrame:
    """One row a model, method and kind of item: how the method's runs differ from SFT's with the same seeds."""
    rows = []
    for (model, name), runs in table.groupby(["model", "name"], sort=False):
        for items in ("test", "confirmed"):
            if items not in table or table[items].isna().all():
                continue
            sft = table[(table.model == model) & (table["name"] == "SFT")].set_index("seed")[items]
            values = runs.set_index("seed")[items]
            row = {"model": model, "method": name, "items": items, "accuracy": values.mean()}
            rows.append(row | ({} if name == "SFT" else paired(values, sft)) | {"runs": len(values)})
    return pd.DataFrame(rows)


def markdown(result: dict, table: pd.DataFrame, draws: pd.DataFrame) -> str:
    lines = [f"# The methods on the {result['mixture']} mixture", "", heading(result), ""]
    lines += ["| base model | method | items | accuracy (%), n | minus SFT (points), 95 % interval, n | p | |"]
    lines += ["|---|---|---|---|---|---|---|"]
    for row in table.to_dict("records"):
        cells = [row["model"], row["method"], row["items"], f"{row['accuracy']:.1f}, {row['runs']}"]
        if row["method"] == "SFT":
            cells += ["", "", ""]
        else:
            cells += [interval(row), "" if isnan(row["p"]) else f"{row['p']:.2g}", verdict(row)]
        lines.append("| " + " | ".join(cells) + " |")
    lines += ["", "Test items chose the checkpoint, as in the paper; nothing was chosen on the confirmation items.", ""]
    lines += ["## Fair draws: mSFT chooses among more evaluations than SFT, and costs more", ""]
    lines += [f"| {' | '.join(draws)} |", "|" + "---|" * len(draws.columns)]
    for row in draws.to_dict("records"):
        cells = [value if isinstance(value, str) else f"{value:.2f}" for value in row.values()]
        lines.append("| " + " | ".join(cells) + " |")
    if "DynamixSFT" in set(table.method):
        batch = METHODS["DynamixSFT"][1]["look_ahead_batch"]
        lines += ["", f"DynamixSFT looks ahead on {batch} examples a sub-dataset, not 128."]
    return "\n".join(lines) + "\n"


def summary(result: dict) -> str:
    """The lines that README shows of a result: one row a base model and method, chosen on test items and confirmed."""
    lines = [
        "| base model | method | runs | chosen on test items, less SFT (points) | confirmed, less SFT (points) | |"
    ]
    lines += ["|---|---|---|---|---|---|"]
    rows = {(row["model"], row["method"], row["items"]): row for row in result["differences"]}
    for (model, method, items), row in rows.items():
        if method != "SFT" and items == "test":
            confirmed = rows.get((model, method, "confirmed"), row)
            cells = [difference(r, 1) for r in (row, confirmed)]
            lines.append(f"| {model} | {method} | {row['n']:.0f} | {' | '.join(cells)} | {verdict(confirmed)} |")
    return "\n".join(lines)


def tell_readme(result: dict, path: Path = README) -> None:
    """Puts the summary between the two marks of README."""
    head, _, rest = path.read_text(encoding="utf-8").partition(MARK)
    _, _, tail = rest.partition(MARK)
    path.write_text(f"{head}{MARK}\n{summary(result)}\n{MARK}{tail}", encoding="utf-8")


def main() -> None:
    from msft import RunConfig
    from msft.launch.local import run_all
    from msft.runs import Run, prepare

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", default="runs")
    parser.add_argument("--model", nargs="+", default=list(MODELS))
    parser.add_argument("--mixture", default="tiny")
    parser.add_argument(
        "--seeds", type=int, nargs=3, default=list(SEEDS), help="first model, others, each of seven methods"
    )
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    about = measured_with("msft", "torch", "transformers")
    name = "evidence" if options.mixture == "tiny" else f"evidence_{options.mixture}"
    known = measured_before(options.results / f"{name}.json", about["machine"])
    configs = {}
    jobs = wanted(options.model, options.mixture, options.seeds)
    mixture = mixture_of(options.mixture, options.runs)
    for job in jobs:
        method, params = METHODS[job["name"]]
        shared = {key: value for key, value in job.items() if key != "name"} | {"mixture": mixture}
        config = RunConfig(method=method, params=params, **shared)
        job["run"] = prepare(config).name
        run = Run(Path(options.runs) / job["run"])
        if run.status == "finished":
            known[job["run"]] = facts(run)
        elif job["run"] not in known:
            configs[job["run"]] = config
    done = pd.DataFrame([job | known[job["run"]] for job in jobs if job["run"] in known], columns=["name", "seconds"])
    missing = [job for job in jobs if job["run"] in configs]
    minutes = minutes_before(missing, done.groupby("name").seconds.mean().to_dict(), options.processes)
    print(
        f"{len(jobs)} runs, {len(missing)} to train"
        + (": no finished run says how long" if minutes is None else f": about {minutes:.0f} minutes"),
        flush=True,
    )
    runs = run_all(list(configs.values()), options.runs, slots=options.processes)
    known |= {name: facts(run) for name, run in zip(configs, runs, strict=True)}
    table = pd.DataFrame([job | known[job["run"]] for job in jobs])
    differences, draws = compared(table), fair_draws(table)
    result = {
        "command": command("evidence.py", options, model=list(MODELS), mixture="tiny", seeds=list(SEEDS)),
        **about,
        "mixture": options.mixture,
        "differences": differences.to_dict("records"),
        "fair draws": draws.to_dict("records"),
        "runs": table.to_dict("records"),
    }
    write(options.results, name, result, markdown(result, differences, draws))
    if options.results == RESULTS and name == "evidence":
        tell_readme(result)


if __name__ == "__main__":
    main()
