"""Numbers and verdicts in README.md, docs/ and DIFFERENCES.md against the committed files that hold them.

A result that is made anew makes a sentence here fail: it says what the text should now say. The block of the methods on
the tiny mixture is compared in test_evidence.py.
"""

import csv
import json
import math
import re
import shlex
import statistics
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from evidence import expected_best

from msft import tiny
from msft.results.run import matching
from paper_figures import contents, findings, profiles, study
from paper_figures.figures import real_model
from paper_figures.instrument import table as instrument

ROOT = Path(__file__).resolve().parents[1]
OUT, RESULTS = ROOT / "paper_figures" / "out" / "tiny", ROOT / "benchmarks" / "results"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]  # in docs/ a link to a file begins with ../
README = "\n".join(page.read_text(encoding="utf-8").replace("](../", "](") for page in PAGES)
DIFFERENCES = (ROOT / "DIFFERENCES.md").read_text(encoding="utf-8")
WAYS = ("HFLM", "first", "further", "vLLM")
TINY = ["tiny-qwen2", "tiny-qwen3", "tiny-olmo2"]


class Row(dict):
    """{column: its value, a number where it is one}."""

    def __init__(self, cells: dict[str, str]):
        super().__init__({name: number(text) for name, text in cells.items()})


def number(text: str):
    try:
        return float(text)
    except ValueError:
        return text


def rows_of(path: Path) -> dict[str, Row]:
    """{first cell: row} of a CSV."""
    with open(path, newline="", encoding="utf-8") as file:
        return {next(iter(cells.values())): Row(cells) for cells in csv.DictReader(file)}


def table(name: str) -> dict[str, Row]:
    """A committed table of the tiny profile."""
    return rows_of(OUT / f"{name}.csv")


def column(rows: dict[str, Row], name: str) -> dict:
    return {key: row[name] for key, row in rows.items()}


def reported(name: str) -> dict[str, Row]:
    """A table of the paper's numbers."""
    return rows_of(next((ROOT / "paper_figures" / "reported").glob(f"{name}*.csv")))


def claim(fragment: str) -> float:
    """The value of the one claim of the paper's text with these words."""
    with open(ROOT / "paper_figures" / "reported" / "text_claims.csv", newline="", encoding="utf-8") as file:
        (value,) = [float(row["value"]) for row in csv.DictReader(file) if fragment in row["claim"]]
    return value


def finding(name: str) -> str:
    """The sentence above a committed picture."""
    return json.loads((OUT / "items" / f"{name}.json").read_text(encoding="utf-8"))["finding"]


def result(name: str) -> dict:
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def row_of(words: str) -> str:
    """The one row of README's tables that holds these words."""
    (line,) = [line for line in README.splitlines() if line.startswith("|") and words in line]
    return line


def is_shown(row) -> bool:
    return row["low"] > 0 or row["high"] < 0


def side(row: Row) -> list[int]:
    """-1, 0 or 1 a model: below, within or above the paper's range."""
    values = [row[f"here, {model}"] for model in TINY if row[f"here, {model}"] != ""]
    return [int(v > row["paper, highest"]) - int(v < row["paper, lowest"]) for v in values]


def mean(values) -> float:
    values = list(values)
    return sum(values) / len(values)


# what is run ------------------------------------------------------------------------------------------------


def test_how_many_runs_and_notebooks():
    made = json.loads((OUT / "manifest.json").read_text(encoding="utf-8"))
    assert f"trains {len(made['runs'])} tiny runs, executes {len(contents.NOTEBOOKS)} notebooks" in README
    assert all("AMD" in made["executions"][notebook["execution"]]["machine"] for notebook in made["notebooks"].values())
    assert "the committed outputs are an AMD processor's" in README and "AMD" in result("evidence")["machine"]


def test_the_grid_and_its_hours():
    from msft.launch.grid import read_grid
    from paper_figures import cost
    from paper_figures.execute import needed
    from paper_figures.study import Study

    page, hours = Study("all", profile="paper"), {}

    def taken(config) -> float:
        if config not in hours:
            found = cost.estimate(config)
            hours[config] = found.expected.seconds / 3600 if found else 0.0
        return hours[config]

    grid = read_grid("paper").runs
    assert f"# the {len(grid)} runs and their states" in README
    assert f"all {len(grid)} together take about {sum(map(taken, grid)):.0f}." in README
    for stem in contents.NOTEBOOKS:
        if stem not in ("15_real_model", "16_sft_share", "data_card", "your_mixture"):  # no runs, or another profile's
            configs = dict.fromkeys(needed([stem], page, {})[0].values())
            assert row_of(f"| {stem} |").split("|")[4].strip() == f"{sum(map(taken, configs)):.0f}", stem


# what the paper claims --------------------------------------------------------------------------------------


def test_when_sub_datasets_peak_and_whether_that_repeats():
    peaks = column(table("01_peaks"), "peak epoch").values()
    line = row_of("| 01_heterogeneous_overfitting |")
    assert f"between epochs {min(peaks):g} and {max(peaks):g} (tiny-qwen2, seed 20)" in line
    bases = result("calibration")["bases"]
    icc = [next(b["measured"] for b in bases[m]["bars"] if b["what"].startswith("ICC")) for m in TINY]
    assert f"ICC {icc[0]:.2f}, {icc[1]:.2f} and {icc[2]:.2f} on the three models" in line
    others = {tuple(key.split(", ")): of["bars"] for key, of in result("calibration_mixtures")["bases"].items()}
    met = {key: sum(bar["met"] for bar in bars) for key, bars in others.items()}
    for mixture in ("tiny-5", "tiny-15", "tiny-21"):
        one, two, three = (met[model, mixture] for model in TINY)
        assert f"{one}, {two} and {three} (`{mixture}`)" in README
    assert len(result("calibration_mixtures")["seeds"]) == 5 and {len(bars) for bars in others.values()} == {9}
    measured = [{bar["what"].split(" (")[0]: bar["measured"] for bar in others[model, "tiny-21"]} for model in TINY]
    room, repeats = ([bars[name] for bars in measured] for name in ("headroom", "ICC of the peaks over seeds"))
    said = f"gain SFT {min(room):.1f} to {max(room):.1f} points over one for all, and peaks repeat over seeds (ICC "
    assert said + f"{min(repeats):.2f} to {max(repeats):.2f})" in README


def test_what_is_said_of_the_mixture_on_which_msft_is_behind():
    of = result("evidence_tiny-21")
    gaps = {row["items"]: row for row in of["differences"] if row["method"] == "mSFT"}
    by = {items: f"{-row['mean']:.1f} ± {row['high'] - row['mean']:.1f}" for items, row in gaps.items()}
    assert f"by {by['test']} points on test items and {by['confirmed']} on fresh ones" in README
    assert f"by {by['test']} points where the six" in README and f"is {by['test']} points behind SFT" in README
    runs = {(run["name"], run["seed"]): run["test"] for run in of["runs"]}
    seeds = [seed for name, seed in runs if name == "mSFT"]
    assert len(seeds) == 5 and all(runs["mSFT", seed] < runs["SFT", seed] for seed in seeds)
    cost = of["fair draws"][0]["FLOPs, mSFT over SFT"]
    assert f"at {cost:.1f} times SFT's compute" in README
    gains = pd.Series(column(table("07_gains_table"), "mSFT")).drop("mean")
    late = gains[[row.name for row in instrument.SUBJECTS if row.moved]]
    early = gains.drop(late.index)
    said = f"is {early.mean():.1f} points above SFT's on the fifteen that over-fit early and {-late.mean():.1f} below on the six"
    assert said in README and len(early) == 15 and (early > 0).all() and len(late) == 6 and (late < 0).all()
    sizes = [len(sub.train) for sub in tiny.make_mixture("tiny-21") if sub.name in late.index]
    assert f"{min(sizes)} to {max(sizes)} train examples" in README
    batch = tiny.settings("tiny-qwen2")["batch_size"]
    steps = [math.ceil(sum(of) / batch) for of in (sizes, [len(sub.train) for sub in tiny.make_mixture("tiny-21")])]
    assert f"an epoch of the six is {steps[0]} steps, where SFT has {steps[1]}. **With" in README


def test_what_is_said_of_the_same_mixture_with_one_size_for_all():
    gaps, by = {}, {}
    for name in ("evidence_tiny-21", "evidence_tiny-21-equal"):
        runs = pd.DataFrame(result(name)["runs"]).pivot(index="seed", columns="name", values=["test", "confirmed"])
        gaps[name] = {items: runs[items].mSFT - runs[items].SFT for items in ("test", "confirmed")}
    for items, gap in gaps["evidence_tiny-21-equal"].items():
        by[items] = f"{gap.mean():+.1f} ± {findings.half_width(gap):.1f}"
        assert abs(gap.mean()) < findings.half_width(gap) and len(gap) == 5
    assert f"cannot be told from SFT ({by['test']})" in README
    assert f"SFT: {by['test']} points on test items, {by['confirmed']} on fresh ones" in README
    better = {items: gaps["evidence_tiny-21-equal"][items] - gap for items, gap in gaps["evidence_tiny-21"].items()}
    said = {items: f"{gap.mean():.1f} ± {findings.half_width(gap):.1f}" for items, gap in better.items()}
    assert f"is {said['confirmed']} points better than with the small six ({said['test']} on test items;" in README
    assert "with sub-categories of one size it cannot be told from SFT" in row_of("| 07_medmcqa_granularity |")


def test_the_shift_and_what_another_seed_does():
    sizes = [row["mean |shift|"] for model, row in table("02_shift_by_model").items() if model in TINY]
    assert f"by {min(sizes):.1f} to {max(sizes):.1f} epochs" in row_of("| 02_optimal_compute_shift |")
    focus = table("02_shift_by_model")["tiny-qwen2"]
    said = f"on tiny-qwen2 by {focus['mean |shift|']:.1f}, where another seed alone moves the same peaks by {focus['another seed']:.1f}"
    assert said in row_of("| 02_optimal_compute_shift |") and "cannot tell" in finding("02_shift")


def test_the_verdicts_are_those_of_the_tables():
    said = {
        name: column(table(name), "same direction")
        for name in ("03_directions", "04_directions", "05_directions", "06_claims", "07_claims", "10_directions")
    }
    no = [name for name, word in said["03_directions"].items() if word != "yes"]
    assert no == ["mSFT over SFT, Science and Knowledge"]
    assert (
        "ahead of every other method of this table, and of SFT in two of the three groups; cannot tell in Science and Knowledge"
        in row_of("| 03_main_results |")
    )
    in_all = pd.read_csv(OUT / "03_groups.csv", index_col=0)[["all groups", "all groups, paper"]]
    assert "yes" not in set(in_all["all groups"]) and list(in_all.index[in_all["all groups, paper"] == "yes"]) == [
        "mSFT"
    ]
    said_of_all = "so that no method is shown to gain in all three ([table](paper_figures/out/tiny/03_groups.md)), as the paper says of mSFT alone"
    assert said_of_all in row_of("| 03_main_results |")
    deviation = column(table("04_consistency_table"), "std of accuracy (points)")
    assert max(deviation, key=deviation.get) == "mSFT" and "mSFT's is the highest" in row_of("| 04_consistency |")
    assert list(said["04_directions"].values()) == ["yes", "no"]
    ablation = said["05_directions"]
    assert {name for name, word in ablation.items() if word == "yes"} == {
        f"{method} over SFT" for method in ("SRO SFT", "Soft SRO SFT", "mSFT")
    }
    assert {ablation[f"mSFT over {other}"] for other in ("SRO SFT", "Soft SRO SFT")} == {"cannot tell"}
    assert "mSFT over SRO SFT and over Soft SRO SFT: cannot tell" in row_of("| 05_ablations |")
    *gains, (budgets, verdict) = said["06_claims"].items()
    assert {word for _, word in gains} == {"yes"} and (budgets, verdict) == ("mSFT with C=5 over C=1", "cannot tell")
    span = table("06_claims")[budgets]
    low, high = (f"{float(value):+.1f}" for value in span["95 % interval"].split(" to "))
    theirs, here = (f"{span[f'{side} (points)']:+.1f}" for side in ("paper", "here"))
    row = row_of("| 06_scale_and_budget |")
    assert f"that C hardly matters: C = 5 is {here} ({low} to {high}) from C = 1, the paper {theirs}" in row
    row = row_of("| 07_medmcqa_granularity |")
    assert (
        "the paper's mean gain is not shown with one seed" in row
        and said["07_claims"]["mSFT over SFT, mean"] == "cannot tell"
    )
    assert re.search(
        r"over-fitting [^(]*; forgetting \(Eq. 4\) [^(]*\(cannot tell from 0\)", finding("08_decomposition")
    )
    assert "prevented over-fitting: shown" in row_of("| 08_forgetting |")
    models = table("08_by_model")
    prevented = [f"{row['prevention']:.1f} ± {row['± of prevention']:.1f}" for row in models.values()]
    assert all(row["prevention"] > row["± of prevention"] for row in models.values())
    assert f"({', '.join(prevented)} points)" in row_of("| 08_forgetting |")
    assert all(abs(row["forgetting"]) < row["± of forgetting"] for row in models.values())
    lost = column(models, "forgetting").values()
    spread = f"forgetting, {max(lost):.1f} to {min(lost):.1f} points, cannot be told from 0 on any"
    assert spread in row_of("| 08_forgetting |")
    losses = {model: row for model, row in table("09_loss_table").items() if is_shown(row)}
    assert list(losses) == ["tiny-qwen2"] and losses["tiny-qwen2"]["low"] > 0
    assert "cannot tell on two models, and mSFT's is higher on tiny-qwen2" in row_of("| 09_training_loss |")
    p = table("10_table6")["mSFT"]["p"]
    assert p < 0.05 and f"by a paired t test too, p = {p} (" in row_of("| 10_seeds |")
    assert said["10_directions"]["mSFT over SFT, mean of the seeds"] == "yes"


def test_which_ratios_of_flops_lie_in_the_paper_s_range():
    assert {name: side(row) for name, row in table("11_ratios").items() if row["paper, mean"] != "" and name != "SFT"} == {
        "Continual SFT": [1, 1, 1], "DynamixSFT": [-1, -1, -1], "IES": [1, 1, 1], "SRO SFT": [0, -1, 0],
        "Soft SRO SFT": [0, 0, 0], "mSFT (C=1)": [1], "mSFT (C=3)": [1, 0, 0],
    }  # fmt: skip
    assert (
        "Soft SRO SFT lies in the paper's range on all three models, SRO SFT and mSFT at C = 3 on two; above it lie Continual "
        "SFT, IES, mSFT at C = 1, and at C = 3 on tiny-qwen2; just below it DynamixSFT, and SRO SFT on tiny-qwen3"
    ) in row_of("| 11_flops |")


def test_shares_copies_and_gains():
    share = [table("16_table4")["SFT / Total (%)"][size] for size in ("7B", "13B", "32B")]
    assert f"{min(share):.3f} to {max(share):.3f} %" in row_of("| 16_sft_share |")
    copies, disk = (column(table("12_copies"), name).values() for name in ("Algorithm 4, mean", "on disk, mean"))
    line = row_of("| 12_storage |")
    paper = claim("mean disk use of mSFT")
    assert f"{min(copies):.1f} to {max(copies):.1f} model copies on average (the paper: {paper:g})" in line
    assert f"really on disk {min(disk):.2f} to {max(disk):.2f}" in line
    (held,) = [
        r["copies, mean"]
        for r in result("storage")["rows"]
        if (r["training"][:4], r["keep_peaks"]) == ("fp32", "memory")
    ]
    assert f"and {held:.2f} where every save is made" in line
    assert f"hold {min(disk):.2f} to {max(disk):.2f} over their time" in DIFFERENCES
    out = column(table("13_summary"), "sat out at least once (%)").values()
    assert f"{min(out):.0f} to {max(out):.0f} % of the examples" in row_of("| 13_ies_exclusions |")
    gain = table("14_remains")["mSFT over SFT"]
    assert (
        f"gains {gain['chosen on test (points)']:.1f} points over SFT where test items choose and "
        f"{gain['chosen on validation (points)']:.1f} where validation items do"
    ) in row_of("| 14_selection |")
    mean = table("your_mixture_comparison")["mean"]
    assert f"mSFT is {mean['SFT'] - mean['mSFT']:.1f} points behind SFT on average" in row_of("| your_mixture |")


# does it help -----------------------------------------------------------------------------------------------


def test_the_first_screen_says_what_the_evidence_says():
    msft = [row for row in result("evidence")["differences"] if row["method"] == "mSFT"]
    ahead = {m for m in TINY if all(row["low"] > 0 for row in msft if row["model"] == m)}
    open_ = {m for m in TINY if not any(is_shown(row) for row in msft if row["model"] == m)}
    assert (ahead, open_) == ({"tiny-qwen2", "tiny-olmo2"}, {"tiny-qwen3"})
    assert "ahead of SFT on two of three small base models and cannot be told from it on the third" in README
    interval = next(row for row in msft if (row["model"], row["items"]) == ("tiny-qwen2", "confirmed"))
    assert interval["high"] - interval["mean"] <= 1  # point: what the number of seeds was chosen for


def test_what_is_said_of_every_seed_and_of_equal_draws():
    found = result("evidence")
    runs = {(run["model"], run["name"], run["seed"]): run for run in found["runs"]}
    pairs = [
        (run, runs[model, "SFT", seed])
        for (model, name, seed), run in runs.items()
        if name == "mSFT" and model == TINY[0]
    ]
    ahead = [sum(ours[items] > theirs[items] for ours, theirs in pairs) for items in ("test", "confirmed")]
    assert (
        f"On `tiny-qwen2` mSFT is ahead with {ahead[0]} of {len(pairs)} seeds on test items and with {ahead[1]} on fresh ones"
        in README
    )
    gains = {m: {} for m in TINY}
    for (model, name, seed), run in runs.items():
        if name == "mSFT":
            gains[model][seed] = run["test"] - runs[model, "SFT", seed]["test"]
    assert max(gains["tiny-qwen3"], key=gains["tiny-qwen3"].get) == 20 and len(gains["tiny-qwen3"]) == 8
    one, all_ = (
        table("03_directions")["mSFT over SFT"]["here (points)"],
        mean(mean(of.values()) for of in gains.values()),
    )
    said = f"the mean gain of the three models is {one:.1f} points with it, {all_:.1f} over all seeds"
    assert said in README and mean(of[20] for of in gains.values()) == pytest.approx(one)
    beside = []
    for other in ("SRO SFT", "Soft SRO SFT"):
        seeds = [seed for model, name, seed in runs if (model, name) == (TINY[0], other)]
        apart = [runs[TINY[0], "mSFT", s]["confirmed"] - runs[TINY[0], other, s]["confirmed"] for s in seeds]
        assert len(apart) == 5 and abs(mean(apart)) < findings.half_width(apart)
        beside.append(findings.mean(apart, 1, signed=True))
    assert f"nor over the five seeds ({' and '.join(beside)} on fresh items)" in row_of("| 05_ablations |")
    draws = {row["model"]: row["the same, equal draws"] for row in found["fair draws"]}
    spans = {m: [float(x) for x in re.search(r"\((\S+) to (\S+)\)", text).groups()] for m, text in draws.items()}
    assert spans["tiny-qwen2"][0] > 0 and spans["tiny-olmo2"][0] > 0 and spans["tiny-qwen3"][1] < 0
    assert {f"{row['FLOPs, mSFT over SFT']:.1f}" for row in found["fair draws"]} == {"1.7"}
    assert README.count("takes 1.7 times SFT's compute") == 2
    small = table("11_ratios")["mSFT (C=1)"]["here, tiny-qwen2"]
    assert f"at C = 1 {small:.2f} times (one seed of `tiny-qwen2`)" in README
    spent = [row["SFT, equal FLOPs"] - row["SFT"] for row in found["fair draws"]]
    assert f"that would gain SFT {min(spent):.1f} to {max(spent):.1f} points" in README
    counts = {sum(model == run[0] and run[1] == "mSFT" for run in runs) for model in TINY}
    assert f"Tiny mixture, {min(counts)} to {max(counts)} seeds a model" in README


def test_what_explains_it():
    found = result("explain")
    rows = {(r["variant"], r["items"]): r for r in found["budget one"]}
    first, second = rows["mSFT, C = 1", "confirmed"], rows["the same, none dropped without a step", "confirmed"]
    span, other = (f"({row['low']:+.1f} to {row['high']:+.1f}" for row in (first, second))
    assert f"mSFT gains {first['mean']:.1f} points over SFT on fresh items {span}, n = {first['n']})" in README
    assert f"where nobody is dropped untrained it is {second['mean']:.1f} {other})" in README
    assert all(row["low"] > 0 for row in rows.values() if "low" in row)
    assert f"drops {first['dropped']:.1f} of the ten sub-datasets" in README and second["dropped"] == 0
    assert first["n"] == 5 and "at C = 1 over five seeds too" in row_of("06_*.png")
    text = (RESULTS / "explain.md").read_text(encoding="utf-8")
    negative = {
        where: [int(x) for x in re.findall(rf"\| {where} \|[^|]*\| (\d+)% \|", text)]
        for where in ("base", "fork", "end of the full branch")
    }
    assert set(negative["base"]) == {0}
    ends, forks = negative["end of the full branch"], negative["fork"]
    assert f"at the end {min(ends)} to {max(ends)} % of the pairs do" in README
    assert f"where the branches fork {min(forks)} to {max(forks)} % do" in README
    ends = [(np.array(of["drift"]["reduced"]), np.array(of["drift"]["other order"])) for of in found["inside"].values()]
    more = np.concatenate([(reduced - other)[:, -1] for reduced, other in ends])
    assert f"the exclusion adds {findings.mean(more, 2)} of the way gone (nine forks" in README and len(more) == 9
    assert f"(n = {len(more)}): {findings.mean(more, 2, signed=True)}." in text


# speed, faults and disk -------------------------------------------------------------------------------------


def test_the_speeds():
    cases, training = result("evaluation")["cases"], result("training")
    for words, name in {
        "lm-eval's HFLM at its best batch": "trained, short shots",
        "the same with average-length shots": "trained, average shots",
        "log-likelihoods of options": "log-likelihoods, average shots",
        "an untrained checkpoint": "untrained, short shots",
    }.items():
        case, cells = cases[name], row_of(words).split("|")
        times = case["hflm"] / case["ours"]
        assert cells[2].strip() == (f"{times:.1f}" if times < 10 else f"{times:.0f}"), name
        assert "floor" not in case or cells[3].strip().startswith(f"{case['ours'] / case['floor']:.2f}"), name
    times = [cases[name]["hflm"] / cases[name]["ours"] for name in ("trained, short shots", "trained, average shots")]
    assert f"| {times[0]:.1f} to {times[1]:.1f}; on a real model " in row_of("speed of five-shot evaluation")
    said = f"evaluation is {times[0]:.1f} to {times[1]:.1f} times as fast as by HFLM, and training"
    rows = list(csv.reader((RESULTS / "training.md").read_text(encoding="utf-8").splitlines(), delimiter="|"))
    times = {row[1].strip(): float(row[4]) for row in rows if len(row) == 6 and re.fullmatch(r" [\d.]+ ", row[4])}
    paper, best = times["TRL, the paper's micro-batches of 4"], times[f"TRL at its best ({training['best']})"]
    patched = times["the same, patched to logits of answer tokens alone"]
    for words, value in (("TRL at the paper's settings", paper), ("TRL at its best", best), ("patched", patched)):
        assert row_of(words).split("|")[2].strip() == f"{value:.1f}", words
    assert f"{paper:.1f} at the paper's settings, {best:.1f} against TRL's best" in README
    assert f"{said} {paper:.1f} times as fast as TRL at the paper's settings, {best:.1f} times at its best" in README
    assert (
        f"| {1 / times['floor, rows of one length, batches of ' + str(training['floor_batch'])]:.2f} times forward"
        in README
    )
    run = result("run")
    assert f"{100 * run['share']:.0f} % of the time goes into forward, backward, optimizer and decoding" in README
    assert f"and {100 * run['seconds']['saving'] / run['total']:.1f} % into saving" in README


def test_faults_and_processes():
    faults = result("faults")
    assert f"{len(faults['kills'])} SIGKILLs of real processes, {len(faults['write faults'])} broken writes" in README
    assert len(faults["full disks"]) == 5 and "five full disks over five methods" in README
    for precision, words in (("fp32", "losses agree to {} in fp32"), ("fp64", "and to {} in double precision")):
        apart = [r["largest difference of a loss"] for r in result("processes")["rows"] if r["precision"] == precision]
        assert words.format(f"{max(apart):.0e}".replace("e-0", "e-")) in README
    (other,) = [
        r["largest difference of a loss"]
        for r in result("processes")["rows"]
        if r["precision"] == "fp32" and "half the length" in r["run"]
    ]
    assert f"sums in another order is {other:.0e} apart".replace("e-0", "e-") in README


def test_copies_on_disk():
    found = {(r["training"], r["keep_peaks"]): r for r in result("storage")["rows"]}
    paper = claim("mean disk use of mSFT")
    for words, training, last in (
        ("tiny mixture, fp32", "fp32, tiny rate", f" {paper:g} "),
        ("bf16 at rate", "bf16, rate 1e-5", " "),
    ):
        row = found[training, "memory"]
        cells = [f" {row[name]:.2f} " for name in ("copies, mean", "whole files, mean")]
        assert row_of(words).split("|")[2:5] == [*cells, last]
    tiny, half = (found[training, "memory"] for training in ("fp32, tiny rate", "bf16, rate 1e-5"))
    said = f"{tiny['copies, mean']:.2f} model copies on disk on average, {tiny['whole files, mean']:.2f} were its files whole"
    assert said in DIFFERENCES and f"and {half['copies, mean']:.2f} in bf16 at 1e-5" in DIFFERENCES


# DIFFERENCES ------------------------------------------------------------------------------------------------


def test_what_table_7_implies():
    lengths = [row for model, row in table("11_implied_lengths").items() if "if N" not in model]
    over = [100 * (row["if all ten are evaluated"] / row["Continual SFT, reported"] - 1) for row in lengths]
    once = [100 * row["if those not trained count once"] / row["Continual SFT, reported"] for row in lengths]
    assert (
        f"on six models that is {min(over):.1f} to {max(over):.1f} % above Table 7's totals" in DIFFERENCES
        and len(lengths) == 6
    )
    assert f"gives {min(once):.0f} to {max(once):.0f} % of them" in DIFFERENCES
    items = [row["tokens an evaluated item"] for row in lengths]
    assert f"fits {round(min(items), -1):.0f} to {round(max(items), -1):.0f} tokens an item" in DIFFERENCES
    dearer = [row["least, with forward passes"] > row["IES, reported"] for row in table("11_limits").values()]
    assert sum(dearer) == 4 and "more than Table 7 reports on four of six models" in DIFFERENCES
    # 8 FLOPs a token in 100 look-aheads at 128 examples of ten sub-datasets, against 6 in ten epochs of 18,000 examples
    overhead, stated = 8 * 100 * 128 * 10 / (6 * 10 * 18_000), claim("look-ahead overhead")
    assert abs(overhead - stated / 100) < 1e-3 and f"the stated {stated:g} % overhead" in DIFFERENCES


def test_fig_6_in_units_of_sft():
    theirs = column(reported("fig6"), "rollout_overhead_pflops").values()
    sft = mean(row["SFT"] for row in reported("table7").values() if row["mSFT (C=1)"] != "")
    assert [round(value / sft) for value in theirs] == [0, 2, 4]
    assert "its overhead about 0, 2 and 4 times SFT" in DIFFERENCES


def test_the_settings_that_differences_states():
    from msft.methods import dynamix_sft, ies, msft

    assert msft.Params().budget == 3 and "mSFT's compute budget C is 3 epochs" in DIFFERENCES
    assert msft.Params().max_stages == 0 and "at most 2 N stages" in DIFFERENCES  # 0 stands for twice the sub-datasets
    assert dynamix_sft.Params().beta == 4 and "sharpness (`beta`) 4 for every model" in DIFFERENCES
    assert ies.Params().delta == 0.001 and "default threshold, 0.001" in DIFFERENCES
    rates = result("learning_rate")["best of SFT (%)"]
    assert {len(of) for of in rates.values()} == {4} and "the one of four at which plain SFT is best" in DIFFERENCES


def test_what_is_said_of_the_first_real_model():
    place = OUT.parent / "laptop"
    optima = pd.read_csv(place / "15_optima_table.csv", index_col=0)["by loss, seed 20"]
    of_sets, headroom = optima.iloc[:-4], optima["headroom (points, nats)"]
    assert f"lowest held-out loss of each set at epochs {of_sets.min():g} to {of_sets.max():g}" in README
    above = (pd.read_csv(place / "15_chance.csv")["above it"] == "yes").sum()
    assert above == 1 and "On one of the ten sets the model is shown to be better than always giving" in README
    history = pd.read_csv(next((place / "histories").glob("sft-*-s20-*/history.csv")))
    losses = history[history.epoch > 0].pivot(index="path_epoch", columns="task", values="loss")
    assert sorted(losses.idxmin()) == sorted(of_sets) and history.epoch.max() == 6
    cost = losses.loc[losses.mean(axis=1).idxmin()] - losses.min()
    assert cost.mean() == pytest.approx(headroom, abs=1e-6) and len(cost) == 10
    assert f"one stop for all costs {findings.mean(cost, 2)} nats against a stop for each (ten sets;" in README
    table = pd.read_csv(place / "15_optima_table.csv", index_col=0).loc["headroom (points, nats)"]
    again = [f"{table[f'by loss, seed {seed}']:.2f}" for seed in (30, 40, 50)]
    assert (
        f"so on others there is less to gain). With seeds 30, 40 and 50 it costs {', '.join(again[:2])} and {again[2]}."
        in README
    )
    gain = -pd.read_csv(place / "15_methods.csv", index_col=0).loc["mSFT", "loss against SFT (nats)"]
    assert (
        gain > headroom and f"gains more than the {headroom:.2f} nats that stops along SFT's own path could" in README
    )


def test_the_page_of_the_first_real_model_is_what_its_committed_histories_give(tmp_path):
    place = OUT.parent / "laptop"
    manifest = json.loads((place / "manifest.json").read_text(encoding="utf-8"))
    words = shlex.split(manifest["executions"][manifest["notebooks"]["15_real_model"]["execution"]]["command"])
    given = {words[i + 1]: words[i + 2] for i, word in enumerate(words) if word == "-p"}
    methods, seeds = given.pop("methods"), int(given.pop("seeds", 2))
    page = study.Study("15_real_model", "laptop", out_dir=str(tmp_path), **given)
    needs = real_model.needs(page, methods, seeds)
    runs = dict(zip(needs, matching(list(needs.values()), place / "histories"), strict=True))
    assert sorted(run.directory.name for run in runs.values()) == sorted(manifest["runs"])
    tables = {
        "15_methods": real_model.methods_table(runs),
        "15_optima_table": real_model.optima_table(runs),
        "15_chance": real_model.chance_table(runs["sft", page.seeds[0]]),
    }
    of = tables["15_optima_table"]
    losses = of[[f"by loss, seed {seed}" for seed in (20, 30, 40, 50)]][:-4]
    moved = losses.max(axis=1) - losses.min(axis=1)
    shown = of.loc["ICC over the seeds":"to"].round(2) + 0.0
    spans = {measure: shown[f"by {measure}, seed 20"] for measure in ("loss", "accuracy")}
    said = "ICC {:.2f} by loss (95 % interval {:.2f} to {:.2f}), {:.2f} by accuracy ({:.2f} to {:.2f})"
    assert said.format(*spans["loss"], *spans["accuracy"]) in README
    assert list(moved[moved == 0].index) == ["AQUA-RAT"] and moved["GSM8K"] == 0.5 and moved["SciQ"] == 1.5
    assert (
        "By loss AQUA-RAT is lowest at the same epoch with all four seeds, GSM8K within half an epoch, SciQ within 1.5"
        in README
    )
    assert f"the other seven move by {moved[moved > 1.5].min():g} to {moved.max():g} epochs." in README
    for name, table in tables.items():
        committed = pd.read_csv(place / f"{name}.csv", index_col=0, float_precision="round_trip")
        pd.testing.assert_frame_equal(table, committed, rtol=1e-5, check_dtype=False)


def test_the_methods_on_the_first_real_model_are_those_of_its_page():
    table = pd.read_csv(OUT.parent / "laptop" / "15_methods.csv", index_col=0)
    lines = {}
    for name, row in table.dropna(subset="loss against SFT (nats)").iterrows():
        method, _, seed = name.removesuffix(")").partition(" (seed ")
        low, *span = (f"{row[of]:+.2f}" for of in ("loss against SFT (nats)", "loss from", "loss to"))
        lines.setdefault(method, {})[seed or "20"] = f"{low} ({' to '.join(span)})".replace("-0.00", "+0.00")
    for method, of in lines.items():
        assert f"| {method} | {' | '.join(of.get(seed, '–') for seed in ('20', '30', '40', '50'))} |" in README
    assert "no other method of the table can be told from SFT, and in accuracy none can" in README
    assert len(lines) == 6 and "Every method has been run." in README
    nats = table["loss (nats)"].round(2)
    assert nats["Continual SFT (seed 40)"] == nats["mSFT (seed 40)"] == 0.86
    assert "ends as low as mSFT with its seed (0.86 nats both)" in README
    others = table[[not name.startswith("mSFT") for name in table.index]]
    assert (others["loss from"].dropna() <= 0).all() and (others["loss to"].dropna() >= 0).all()


def test_what_is_said_of_the_methods_on_the_first_real_model():
    place = OUT.parent / "laptop"

    def losses_of(method, seed):
        run = pd.read_csv(next((place / "histories").glob(f"{method}-*-s{seed}-*/history.csv")))
        return run.pivot(index=["stage", "epoch"], columns="task", values="loss")

    def lowest(of):
        return of.loc[of.mean(axis=1).idxmin()]

    losses = {m: losses_of(m, 20) for m in ("sft", "msft", "sro_sft", "ies")}
    best = {m: lowest(of) for m, of in losses.items()}
    gain = {m: best["sft"] - best[m] for m in ("msft", "sro_sft", "ies")}
    half = {m: findings.half_width(of) for m, of in gain.items()}
    said = f"mSFT (C = 1) ends {gain['msft'].mean():.3f} ± {half['msft']:.3f} nats below SFT"
    assert said in README and gain["msft"].mean() > half["msft"]
    ends = {(m, seed): lowest(losses_of(m, seed)) for m in ("sft", "msft") for seed in (20, 30, 40, 50)}
    gains = {seed: ends["sft", seed] - ends["msft", seed] for seed in (20, 30, 40, 50)}
    mean_gain, by_seed = sum(gains.values()) / 4, [of.mean() for of in gains.values()]
    second, third, fourth, whole = (findings.mean(of, 3) for of in (gains[30], gains[40], gains[50], mean_gain))
    assert f"{second} with seed 30, {third} with seed 40 and {fourth} with seed 50: {whole} over the four" in README
    assert all(np.mean(of) > findings.half_width(of) for of in (mean_gain, by_seed))  # 'a lower loss is shown'
    assert all(gains[seed].mean() < findings.half_width(gains[seed]) for seed in (30, 40))
    over_seeds = findings.mean(by_seed, 3)
    assert f"or {over_seeds} (± over the four seeds)." in README
    assert f"mSFT ends with a lower held-out loss than SFT (by {over_seeds} nats a token)" in README
    spread = {m: [ends[m, seed].mean() for seed in gains] for m in ("sft", "msft")}
    apart = [f"{max(of) - min(of):.3f}" for of in spread.values()]
    assert f"The four seeds of SFT alone end up to {apart[0]} nats apart, of mSFT {apart[1]}." in README
    assert "Soft SRO SFT, DynamixSFT and Continual SFT (seed 40) cannot be told from SFT." in README
    assert "In accuracy none of the six can be told from SFT." in README
    assert all(abs(gain[m].mean()) < half[m] for m in ("sro_sft", "ies"))
    assert (
        "IES reports a checkpoint of epoch 2 with both seeds and leaves nothing out before the end of epoch 3" in README
    )
    assert {lowest(losses_of("ies", seed)).name for seed in (20, 40)} == {(0, 2.0)}
    same, other = (losses_of(method, 40).loc[0].loc[:3.0] for method in ("ies", "sft"))
    assert same.equals(other) and len(same) == 7  # 'to the last digit'
    table = pd.read_csv(place / "15_methods.csv", index_col=0)
    assert (table["from"].dropna() <= 0).all() and (table["to"].dropna() >= 0).all()
    for name in ("SRO SFT (seed 40)", "Soft SRO SFT (seed 40)"):
        assert table.loc[name, "loss from"] < 0 < table.loc[name, "loss to"]
    assert table.loc["mSFT", "loss against SFT (nats)"] == pytest.approx(-gain["msft"].mean(), abs=1e-6)

    def draws(method, seed):  # a stage's start point was evaluated before
        means = losses_of(method, seed).mean(axis=1)
        return list(-means[[stage == 0 or epoch > 0 for stage, epoch in means.index]])

    fair = [expected_best(draws("msft", seed), len(draws("sft", seed))) - max(draws("sft", seed)) for seed in gains]
    said = f"among no more evaluations than SFT it ends {findings.mean(fair, 3)} below (over the seeds)"
    assert said in README and np.mean(fair) > findings.half_width(fair)


def test_what_is_said_of_the_laptop_profile_s_rate():
    found = result("laptop_rate")
    assert profiles.profile("laptop")["settings"]["learning_rate"] == float(found["lowest"])
    behind = {float(rate): values for rate, values in found["above it, half of the interval"].items()}
    assert min(behind) < float(found["lowest"]) < max(behind)  # an inner optimum
    over = "95 % interval over ten sub-datasets, one seed: "
    for rate, said in (
        (2e-5, f"2e-5 is {{}} nats behind ({over}"),
        (2e-4, "and 2e-4 {} ("),
        (1e-4, "1e-4 is {} behind ("),
    ):
        mean, half = behind[rate]
        assert f"{said.format(f'{mean:.3f}')}{mean - half:+.3f} to {mean + half:+.3f})" in README
    assert [mean > half for mean, half in map(behind.get, (2e-5, 1e-4, 2e-4))] == [True, False, True]
    right, blind = found["by rate and epoch"][found["lowest"]]["0.5"]["accuracy"], found["most frequent answer (%)"]
    assert f"After half an epoch at 5e-5 it answers {right:.1f} % right, where always giving" in README
    assert f"most frequent answer has {blind:.1f} %" in README


def test_speed_on_the_real_model():
    found = result("real_model")
    tasks = found["tasks"]
    sums = {w: [sum(v) for v in zip(*(case["seconds"][w] for case in tasks.values()), strict=True)] for w in WAYS}

    def times(seconds, way, peer):
        return statistics.median(slow / fast for slow, fast in zip(seconds[peer], seconds[way], strict=False))

    for peer, label in (("HFLM", "HFLM at its best batch"), ("vLLM", "a warm vLLM")):
        cells = []
        for way in ("first", "further"):
            each = {name: times(case["seconds"], way, peer) for name, case in tasks.items()}
            low, high = min(each, key=each.get), max(each, key=each.get)
            ends = f"{each[low]:.2f} {low} to {each[high]:.2f} {high}"
            cells.append(f"{times(sums, way, peer):.2f} ({ends})")
        assert f"| {label} | {' | '.join(cells)} |" in README
    whole = [times(sums, "first", peer) for peer in ("HFLM", "vLLM")]
    assert f"; on a real model {whole[0]:.1f}, and {whole[1]:.2f} of a warm vLLM's |" in README
    assert not any(sum(case["different"].values()) for case in tasks.values())
    starts = sorted(result(name)["vllm start"] for name in ("real_model", "real_model_one_call"))
    assert "cold start of vLLM takes {:.0f} to {:.0f} processor seconds more".format(*starts) in README
    (case,) = result("real_model_one_call")["tasks"].values()
    ours = [f"{times(case['seconds'], way, peer):.2f}" for peer in ("HFLM", "vLLM") for way in ("first", "further")]
    assert "{} and {} times HFLM, {} and {} of a warm vLLM".format(*ours) in README
    each = [s / f for way in WAYS[1:3] for s, f in zip(case["seconds"]["vLLM"], case["seconds"][way], strict=True)]
    assert f"at once too ({min(each):.2f} to {max(each):.2f} over five rounds in turn; HFLM: one)" in README
    assert case["items"] == 160 and not any(case["different"].values())


def test_training_of_the_real_model():
    for name, words in (("", "| fp32 ([all"), ("_mixed", "| mixed, TRL's"), ("_bf16", "| bf16 weights (")):
        times = result(f"training_real{name}")["seconds"]
        ratios = [times[peer] / times["ours"] for peer in ("paper", "best", "patched")]
        cells = [f"{value:.2f}" for value in (*ratios, times["ours"] / times["floor"])]
        assert [cell.strip() for cell in row_of(words).split("|")[2:6]] == cells, words
    times = result("training_real")["seconds"]
    paper, best = (times[name] / times["ours"] for name in ("paper", "best"))
    assert f"on a real model {paper:.1f} and {best:.1f} |" in README
