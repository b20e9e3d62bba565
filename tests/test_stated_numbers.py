"""Numbers and verdicts in README.md and DIFFERENCES.md against the committed files that hold them.

A result that is made anew makes a sentence here fail: it says what the text should now say. The block of the methods on
the tiny mixture is compared in test_evidence.py.
"""

import csv
import json
import re
from pathlib import Path

import pandas as pd

from paper_figures import contents, reported_numbers

ROOT = Path(__file__).resolve().parents[1]
OUT, RESULTS = ROOT / "paper_figures" / "out" / "tiny", ROOT / "benchmarks" / "results"
README, DIFFERENCES = ((ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "DIFFERENCES.md"))
TINY = ["tiny-qwen2", "tiny-qwen3", "tiny-olmo2"]


def table(name: str) -> pd.DataFrame:
    """A committed table of the tiny profile, by its first column."""
    return pd.read_csv(OUT / f"{name}.csv", index_col=0)


def result(name: str) -> dict:
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def row_of(words: str) -> str:
    """The one row of README's tables that holds these words."""
    (line,) = [line for line in README.splitlines() if line.startswith("|") and words in line]
    return line


def is_shown(row) -> bool:
    return row["low"] > 0 or row["high"] < 0


def side(theirs: pd.Series, values: pd.Series) -> list[int]:
    """-1, 0 or 1 a value: below, within or above the paper's range."""
    return [int(v > theirs["paper, highest"]) - int(v < theirs["paper, lowest"]) for v in values.dropna()]


# what is run ------------------------------------------------------------------------------------------------


def test_how_many_runs_and_notebooks():
    made = json.loads((OUT / "manifest.json").read_text(encoding="utf-8"))
    assert f"trains {len(made['runs'])} tiny runs, executes {len(contents.NOTEBOOKS)} notebooks" in README


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
        if stem not in ("15_real_model", "15_sft_share", "data_card", "your_mixture"):  # no runs, or another profile's
            configs = dict.fromkeys(needed([stem], page, {})[0].values())
            assert row_of(f"| {stem} |").split("|")[4].strip() == f"{sum(map(taken, configs)):.0f}", stem


# what the paper claims --------------------------------------------------------------------------------------


def test_when_sub_datasets_peak_and_whether_that_repeats():
    peaks = table("01_peaks")["peak epoch"]
    line = row_of("| 01_heterogeneous_overfitting |")
    assert f"between epochs {peaks.min():g} and {peaks.max():g} (tiny-qwen2, seed 20)" in line
    bases = result("calibration")["bases"]
    icc = [next(b["measured"] for b in bases[m]["bars"] if b["what"].startswith("ICC")) for m in TINY]
    assert f"ICC {icc[0]:.2f}, {icc[1]:.2f} and {icc[2]:.2f} on the three models" in line


def test_the_shift_and_what_another_seed_does():
    sizes = table("02_shift_by_model").loc[TINY, "mean |shift|"]
    assert f"by {sizes.min():.1f} to {sizes.max():.1f} epochs" in row_of("| 02_optimal_compute_shift |")
    for name in ("02_shift", "02_shift_others"):
        finding = json.loads((OUT / "items" / f"{name}.json").read_text(encoding="utf-8"))["finding"]
        assert sizes.max() < float(re.search(r"from the ([\d.]+) that another seed does", finding)[1])


def test_the_verdicts_are_those_of_the_tables():
    rows = table("03_directions")["same direction"]
    against = rows[[name for name in rows.index if "," not in name]]
    assert set(against) == {"yes"} and "ahead of every other method" in row_of("| 03_main_results |")
    assert rows[rows != "yes"].index.tolist() == ["mSFT over SFT, Mathematic and Quantitative"]
    deviation = table("04_consistency_table")["std of accuracy (points)"]
    assert deviation.idxmax() == "mSFT" and "mSFT's is the highest" in row_of("| 04_consistency |")
    assert table("04_directions")["same direction"].tolist() == ["yes"]
    ablation = table("05_directions")["same direction"]
    assert (ablation["mSFT over SRO SFT"], ablation["mSFT over Soft SRO SFT"]) == ("yes", "cannot tell")
    assert set(table("06_claims")["same direction"]) == {"yes"}
    gains = table("07_gains_table").drop("mean").mSFT
    assert f"{(gains == 0).sum()} of {len(gains)} sub-categories are as under SFT" in row_of(
        "| 07_medmcqa_granularity |"
    )
    losses = table("09_loss_table")
    shown = losses[losses.apply(is_shown, axis=1)]
    assert shown.index.tolist() == ["tiny-qwen3"] and shown.low.item() > 0
    assert "cannot tell on two models, and mSFT's is higher on tiny-qwen3" in row_of("| 09_training_loss |")
    assert f"p = {table('10_table6').p['mSFT']} (" in row_of("| 10_seeds |")
    assert table("10_directions")["same direction"].iloc[0] == "yes"


def test_forgetting_and_prevention():
    finding = json.loads((OUT / "items" / "08_decomposition.json").read_text(encoding="utf-8"))["finding"]
    assert finding.count("(cannot tell from 0)") == 2
    assert "cannot tell prevented over-fitting or forgetting from 0" in row_of("| 08_forgetting |")


def test_which_ratios_of_flops_lie_in_the_paper_s_range():
    rows = table("11_ratios").drop("SFT")
    sides = {
        name: side(row, row[[f"here, {m}" for m in TINY]]) for name, row in rows.dropna(subset="paper, mean").iterrows()
    }
    assert sides == {
        "Continual SFT": [1, 1, 1], "DynamixSFT": [-1, -1, -1], "IES": [1, 1, 1], "SRO SFT": [0, 0, 0],
        "Soft SRO SFT": [0, 0, 0], "mSFT (C=1)": [1], "mSFT (C=3)": [0, 0, 1],
    }  # fmt: skip
    assert (
        "SRO SFT and Soft SRO SFT lie in the paper's range on all three models, mSFT at C = 3 on two; above it lie Continual "
        "SFT, IES, mSFT at C = 1, and at C = 3 on tiny-olmo2; DynamixSFT lies just below"
    ) in row_of("| 11_flops |")


def test_shares_copies_and_gains():
    share = pd.to_numeric(table("15_table4").loc["SFT / Total (%)", ["7B", "13B", "32B"]])
    assert f"{share.min():.3f} to {share.max():.3f} %" in row_of("| 15_sft_share |")
    copies, disk = (table("12_copies")[name] for name in ("Algorithm 4, mean", "on disk, mean"))
    paper = reported_numbers.claim("mean disk use of mSFT")
    line = row_of("| 12_storage |")
    assert f"{copies.min():.1f} to {copies.max():.1f} model copies on average (the paper: {paper:g})" in line
    assert f"really on disk {disk.min():.1f} to {disk.max():.1f}" in line
    assert f"as runs save now, {disk.min():.1f} to {disk.max():.1f}" in DIFFERENCES
    out = table("13_summary")["sat out at least once (%)"]
    assert f"{out.min():.0f} to {out.max():.0f} % of the examples" in row_of("| 13_ies_exclusions |")
    gain = table("14_remains").loc["mSFT over SFT"]
    assert (
        f"gains {gain['chosen on test (points)']:.1f} points over SFT where test items choose and "
        f"{gain['chosen on validation (points)']:.1f} where validation items do"
    ) in row_of("| 14_selection |")


# does it help -----------------------------------------------------------------------------------------------


def test_the_first_screen_says_what_the_evidence_says():
    msft = [row for row in result("evidence")["differences"] if row["method"] == "mSFT"]
    ahead = {m for m in TINY if all(row["low"] > 0 for row in msft if row["model"] == m)}
    open_ = {m for m in TINY if not any(is_shown(row) for row in msft if row["model"] == m)}
    assert (ahead, open_) == ({"tiny-qwen2"}, {"tiny-qwen3", "tiny-olmo2"})
    assert "ahead of SFT on one of three small base models and cannot be told from it on the two others" in README


def test_what_is_said_of_every_seed_and_of_equal_draws():
    found = result("evidence")
    runs = pd.DataFrame(found["runs"]).pivot_table(
        index=["model", "seed"], columns="name", values=["test", "confirmed"]
    )
    gain = (runs.xs("mSFT", axis=1, level=1) - runs.xs("SFT", axis=1, level=1)).dropna()
    assert (gain.loc["tiny-qwen2"] > 0).all(axis=None) and "On `tiny-qwen2` the gain is there on every seed" in README
    assert (gain.loc["tiny-qwen3"] < 0).all(axis=None) and "On `tiny-qwen3` mSFT is behind on every seed" in README
    assert (gain.loc["tiny-olmo2"].mean() > 0).all() and "On `tiny-olmo2` it points the same way" in README
    draws = {row["model"]: row["the same, equal draws"] for row in found["fair draws"]}
    spans = {m: [float(x) for x in re.search(r"\((\S+) to (\S+)\)", text).groups()] for m, text in draws.items()}
    assert spans["tiny-qwen2"][0] > 0 and spans["tiny-qwen3"][1] < 0


def test_what_explains_it():
    found = result("explain")
    rows = {(r["variant"], r["items"]): r for r in found["budget one"]}
    first, second = rows["mSFT, C = 1", "test"], rows["the same, none dropped without a step", "test"]
    assert (
        f"At C = 1 (n = {first['n']}) mSFT gains {first['mean']:.1f} points over SFT, which cannot be told from"
        in README
    )
    assert not any(is_shown(row) for row in rows.values() if "low" in row)
    assert "drops nearly five of ten" in README and 4.5 <= first["dropped"] < 5 and second["dropped"] == 0
    assert f"not shown over {['no', 'one', 'two', 'three', 'four', 'five'][first['n']]} seeds" in row_of("06_*.png")
    text = (RESULTS / "explain.md").read_text(encoding="utf-8")
    negative = {
        where: [int(x) for x in re.findall(rf"\| {where} \|[^|]*\| (\d+)% \|", text)]
        for where in ("base", "end of the full branch")
    }
    assert set(negative["base"]) == {0}
    ends = negative["end of the full branch"]
    assert f"at the end {min(ends)} to {max(ends)} % of the pairs do" in README


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
    assert f"| {times[0]:.1f} to {times[1]:.1f} |" in row_of("speed of five-shot evaluation")
    rows = list(csv.reader((RESULTS / "training.md").read_text(encoding="utf-8").splitlines(), delimiter="|"))
    times = {row[1].strip(): float(row[4]) for row in rows if len(row) == 6 and re.fullmatch(r" [\d.]+ ", row[4])}
    paper, best = times["TRL, the paper's micro-batches of 4"], times[f"TRL at its best ({training['best']})"]
    patched = times["the same, patched to logits of answer tokens alone"]
    for words, value in (("TRL at the paper's settings", paper), ("TRL at its best", best), ("patched", patched)):
        assert row_of(words).split("|")[2].strip() == f"{value:.1f}", words
    assert f"{paper:.1f} at the paper's settings, {best:.1f} against TRL's best" in README
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
    apart = pd.DataFrame(result("processes")["rows"]).groupby("precision")["largest difference of a loss"].max()
    assert f"losses agree to {apart['fp32']:.0e}".replace("e-0", "e-") in README
    assert f"and to {apart['fp64']:.0e} in double precision".replace("e-0", "e-") in README


def test_copies_on_disk():
    rows = {(r["training"], r["keep_peaks"]): r["copies, mean"] for r in result("storage")["rows"]}
    paper = reported_numbers.claim("mean disk use of mSFT")
    for words, training, last in (
        ("tiny mixture, fp32", "fp32, tiny rate", f" {paper:g} "),
        ("bf16 at rate", "bf16, rate 1e-5", " "),
    ):
        cells = row_of(f"{words}").split("|")
        assert cells[2:6] == [*(f" {rows[training, mode]:.2f} " for mode in ("memory", "delta", "disk")), last]
    tiny, whole, half = (
        rows[key] for key in (("fp32, tiny rate", "memory"), ("fp32, tiny rate", "disk"), ("bf16, rate 1e-5", "memory"))
    )
    assert f"{tiny:.2f} model copies on disk on average against {whole:.2f} with whole files" in DIFFERENCES
    assert f"and {half:.2f} in bf16 at 1e-5" in DIFFERENCES


# DIFFERENCES ------------------------------------------------------------------------------------------------


def test_what_table_7_implies():
    lengths = table("11_implied_lengths").loc[:"Qwen3 8B"]
    reported = lengths["Continual SFT, reported"]
    over = 100 * (lengths["if all ten are evaluated"] / reported - 1)
    once = 100 * lengths["if those not trained count once"] / reported
    assert f"lie {over.min():.1f} to {over.max():.1f} % below that on six models" in DIFFERENCES and len(lengths) == 6
    assert f"gives {once.min():.0f} to {once.max():.0f} % of them" in DIFFERENCES
    items = lengths["tokens an evaluated item"]
    assert "fits 100 to 380 tokens an item" in DIFFERENCES
    assert (round(items.min(), -1), round(items.max(), -1)) == (100, 380)
    limits = table("11_limits")
    assert (limits["least, with forward passes"] > limits["IES, reported"]).sum() == 4
    assert "more than Table 7 reports on four of six models" in DIFFERENCES
    assert f"the stated {reported_numbers.claim('look-ahead overhead'):g} % overhead" in DIFFERENCES
    # 8 FLOPs a token in 100 look-aheads at 128 examples of ten sub-datasets, against 6 in ten epochs of 18,000 examples
    overhead = 8 * 100 * 128 * 10 / (6 * 10 * 18_000)
    assert abs(overhead - reported_numbers.claim("look-ahead overhead") / 100) < 1e-3


def test_fig_6_in_units_of_sft():
    theirs = reported_numbers.table("fig6").rollout_overhead_pflops
    sft = reported_numbers.table("table7").set_index("model").drop("Average").dropna().SFT.mean()
    assert [round(value / sft) for value in theirs] == [0, 2, 4]
    assert "its overhead about 0, 2 and 4 times SFT" in DIFFERENCES


def test_the_settings_that_differences_states():
    from msft.methods import dynamix_sft, ies, msft

    assert msft.Params().budget == 3 and "mSFT's compute budget C is 3 epochs" in DIFFERENCES
    assert msft.Params().max_stages == 0 and "at most 2 N stages" in DIFFERENCES  # 0 stands for twice the sub-datasets
    assert dynamix_sft.Params().beta == 4 and "sharpness (`beta`) 4 for every model" in DIFFERENCES
    assert ies.Params().delta == 0.001 and "default threshold, 0.001" in DIFFERENCES
    rates = pd.DataFrame(result("learning_rate")["best of SFT (%)"])
    assert len(rates) == 4 and "the one of four at which plain SFT is best" in DIFFERENCES
