"""FLOPs by appendix F: closed forms on whole runs, counted anew from what was trained, and the identities of Table 7."""

import pandas as pd
import pytest
import yaml
from helpers import make_model
from recorder import PARAMS, recorded

import msft
from msft.methods import dynamix_sft
from msft.results.flops import evaluated_tokens, run_flops
from paper_figures import style

TABLE_7 = style.__file__.replace("style.py", "reported/table7_flops.csv")
METHODS = msft.methods.available()


# whole runs, counted anew -------------------------------------------------------------------------------------


def roll_outs(run):
    return [e for e in run.journal if e["kind"] in ("roll_out", "search")]


@pytest.mark.parametrize("method", METHODS)
def test_flops_are_those_of_the_tokens_really_trained(finished, method):
    record = finished(method)
    run, n = record.run, record.run.result["parameters"]
    assert n == sum(p.numel() for p in make_model().parameters())
    length = record.lengths
    trained = sum(length[i] for _, rows in record.steps for i in rows)
    resting = sum(length[i] for _, rested in record.epochs for i in rested)
    looked = sum(length[i] for rows, _, _ in record.look_aheads for i in rows)
    assert run.flops["train"] == 6 * n * trained + 2 * n * resting
    assert run.flops["look_ahead"] == 8 * n * looked
    assert run.flops["total"] == run.flops["train"] + run.flops["evaluate"] + run.flops["look_ahead"]
    assert (resting > 0) == (method == "ies")
    assert (looked > 0) == (method == "dynamix_sft")


@pytest.mark.parametrize("method", ["sft", "dynamix_sft", "ies"])
def test_one_roll_out_evaluates_everything_at_every_point(finished, method):
    run = finished(method).run
    (entry,) = roll_outs(run)
    points = entry["result"]["points"]
    assert len(points) == 4 * PARAMS[method]["epochs"] + 1
    tokens = sum(sum(point["tokens"].values()) for point in points)
    assert run.flops["evaluate"] == 2 * run.result["parameters"] * tokens


@pytest.mark.parametrize("method", ["soft_sro_sft", "sro_sft"])
def test_search_and_training_are_both_counted(finished, method):
    run, sft = finished(method).run, finished("sft").run
    first, *rest = roll_outs(run)
    assert first["kind"] == "search"
    n = run.result["parameters"]
    assert run.flops["train"] == sft.flops["train"] + 6 * n * sum(e["result"]["trained_tokens"] for e in rest)
    if method == "soft_sro_sft":
        # the second training begins at weights that were evaluated
        again = sum(sum(p["tokens"].values()) for p in rest[0]["result"]["points"][1:])
        assert run.flops["evaluate"] == sft.flops["evaluate"] + 2 * n * again


def test_sft_is_six_n_t_c(finished, settings):
    record, n = finished("sft"), finished("sft").run.result["parameters"]
    assert record.run.flops["train"] == 6 * n * sum(record.lengths) * PARAMS["sft"]["epochs"]


def test_continual_sft_is_the_sum_over_its_sub_datasets(finished):
    record = finished("continual_sft")
    n, budget = record.run.result["parameters"], PARAMS["continual_sft"]["budget"]
    assert record.run.flops["train"] == 6 * n * sum(record.lengths) * budget
    # all sub-datasets at every evaluation; a start point is an evaluation of the stage before
    outs = [entry["result"]["points"] for entry in roll_outs(record.run)]
    points = outs[0] + [point for points in outs[1:] for point in points[1:]]
    assert record.run.flops["evaluate"] == 2 * n * sum(sum(point["tokens"].values()) for point in points)


def msft_evaluated(run):
    """Tokens by appendix F: active sub-datasets at every evaluation, excluded ones once a stage, where it goes on from."""
    total = 0
    backs = {e["arguments"]["stage"]: e["arguments"]["epoch"] for e in run.journal if e["kind"] == "roll_back"}
    for entry in roll_outs(run):
        points, active = entry["result"]["points"], entry["arguments"]["active"]
        on = backs.get(entry["result"]["stage"], points[-1]["epoch"])
        for point in points:
            first = point["epoch"] == 0 and entry["result"]["stage"] > 0
            total += sum(point["tokens"][task] for task in active if not first)
            if point["epoch"] == on:
                total += sum(tokens for task, tokens in point["tokens"].items() if task not in active)
    return total


def test_msft_trains_what_is_active(finished):
    record = finished("msft")
    n = record.run.result["parameters"]
    by_task = {t: sum(k for k, o in zip(record.lengths, record.owners, strict=True) if o == t) for t in record.owners}
    # three quarters of an epoch are not whole passes, so stages are compared by their steps
    assert record.run.flops["train"] <= 6 * n * sum(
        sum(by_task[task] for task in entry["arguments"]["active"]) for entry in roll_outs(record.run)
    )
    assert record.run.flops["train"] == 6 * n * sum(e["result"]["trained_tokens"] for e in roll_outs(record.run))


def entry(stage, active, tokens, reused, kind="roll_out", **counts):
    points = [
        {"epoch": k / 4, "tokens": row, "reused": reused and k == 0, "selection": {}, "accuracy": {}}
        for k, row in enumerate(tokens)
    ]
    result = {"stage": stage, "points": points, "trained_tokens": 0, "forward_tokens": 0, "look_ahead_tokens": 0}
    return {"kind": kind, "arguments": {"active": active}, "result": {**result, **counts}}


def test_evaluation_of_msft_by_hand():
    first = entry(0, ["a", "b"], [{"a": 1, "b": 10}, {"a": 2, "b": 20}, {"a": 3, "b": 30}], reused=False)
    second = entry(1, ["b"], [{"a": 2, "b": 20}, {"a": 4, "b": 40}], reused=True)
    assert evaluated_tokens(first["result"]["points"], {"a", "b"}) == 66
    assert evaluated_tokens(second["result"]["points"], {"b"}) == 40 + 4
    assert run_flops([first, second], 5)["evaluate"] == 2 * 5 * 110


def test_excluded_sub_datasets_are_counted_at_the_roll_back_point():
    """Appendix F: validated once, at the checkpoint of the roll-back."""
    rolled = entry(0, ["b"], [{"a": 1, "b": 0}, {"a": 20, "b": 0}, {"a": 300, "b": 0}], reused=True)
    back = {"kind": "roll_back", "arguments": {"stage": 0, "epoch": 0.25, "dropped": "b"}, "result": {}}
    assert run_flops([rolled, back], 1)["evaluate"] == 2 * 20


def test_evaluation_of_msft_on_a_whole_run(settings, tmp_path, monkeypatch):
    def earliest(curve, active):
        return min(((task, curve.peak(task)) for task in active), key=lambda found: found[1])

    monkeypatch.setattr(msft.methods.msft, "earliest_overfit", earliest)
    run = recorded(settings, tmp_path, "msft").run
    assert len(roll_outs(run)) == 3
    assert run.flops["evaluate"] == 2 * run.result["parameters"] * msft_evaluated(run)


def test_verbs_without_tokens_cost_nothing():
    verbs = [
        {"kind": kind, "arguments": {"stage": 0, "epoch": 0.0}, "result": {}}
        for kind in ("roll_back", "restart", "report", "note")
    ]
    assert run_flops(verbs, 10) == {"train": 0, "evaluate": 0, "look_ahead": 0, "total": 0}


# Table 7 ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def table_7():
    return pd.read_csv(TABLE_7, index_col="model")


@pytest.fixture(scope="module")
def overhead():
    """Look-ahead over training FLOPs in the paper's shape: 18,000 examples, ten sub-datasets, 10 epochs."""
    p, tokens, tasks, train = dynamix_sft.Params(), 90, 10, 18_000
    counts = {
        "trained_tokens": round(p.epochs * train * tokens),
        "look_ahead_tokens": p.updates * tasks * p.look_ahead_batch * tokens,
    }
    flops = run_flops([entry(0, [], [], reused=False, **counts)], 1)
    return flops["look_ahead"] / flops["train"]


def test_overhead_of_dynamix_with_its_default_settings(overhead):
    claims = pd.read_csv(TABLE_7.replace("table7_flops", "text_claims"))
    stated = float(claims[claims["claim"].str.startswith("look-ahead overhead")]["value"].iloc[0]) / 100
    assert stated == pytest.approx(0.949)
    assert overhead == pytest.approx(stated, rel=0.01)


PARAMETERS = {"Qwen2.5 0.5B": 0.494, "Qwen2.5 1.5B": 1.544, "Qwen2.5 3B": 3.086, "Qwen2.5 7B": 7.616, "Qwen3 8B": 8.191}


@pytest.mark.parametrize("model", PARAMETERS)
def test_look_ahead_of_table_7_has_the_mixture_s_tokens(table_7, model):
    """The cost of DynamixSFT above SFT is that of 100 x 10 x 128 examples of about 90 tokens, at 8 N each."""
    row, n = table_7.loc[model], PARAMETERS[model] * 1e9
    extra = (row["DynamixSFT"] - row["SFT"]) * 1e15
    ours = run_flops([entry(0, [], [], reused=False, look_ahead_tokens=100 * 10 * 128 * 90)], n)["look_ahead"]
    assert extra == pytest.approx(ours, rel=0.02)


def test_training_part_of_table_7_leaves_a_plausible_evaluation(table_7, overhead):
    """The training part that the overhead implies is 65 to 90 % of SFT's total; the rest is evaluation."""
    training = (table_7["DynamixSFT"] - table_7["SFT"]) / overhead
    share = (training / table_7["SFT"]).drop("Average")
    assert share.between(0.6, 0.9).all()


def test_soft_sro_of_table_7_is_a_search_and_about_another_sft(table_7):
    ratio = (table_7["Soft SRO SFT"] / table_7["SFT"]).drop("Average")
    assert (round(ratio.min(), 2), round(ratio.max(), 2)) == (1.77, 2.13)
    assert (table_7["IES"] < table_7["SFT"]).all()
    assert (table_7["SRO SFT"] > table_7["SFT"]).all()
    assert (table_7["SRO SFT"] < table_7["Soft SRO SFT"]).all()


def test_soft_sro_of_ours_is_twice_sft(finished):
    """Weights have the mean 1: with equal sizes and lengths alike an epoch costs as much as one of SFT."""
    sft, run = finished("sft").run, finished("soft_sro_sft").run
    assert 1.5 < run.flops["total"] / sft.flops["total"] < 2.5


def test_mean_of_table_7(table_7):
    rows = table_7.drop("Average")
    for method in ("SFT", "Continual SFT", "DynamixSFT", "IES", "SRO SFT", "Soft SRO SFT", "mSFT (C=3)"):
        assert rows[method].mean() == pytest.approx(table_7.loc["Average", method], abs=0.01)


def test_mixture_of_one_and_of_three_cost_in_proportion(settings, mixture_file, tmp_path):
    rows = yaml.safe_load(mixture_file.read_text())
    path = mixture_file.with_name("first.yaml")
    path.write_text(yaml.safe_dump({"name": "first", "sub_datasets": rows["sub_datasets"][:1]}))
    whole = recorded(settings, tmp_path, "sft", {"epochs": 1})
    part = recorded({**settings, "mixture": str(path)}, tmp_path, "sft", {"epochs": 1})
    share = sum(part.lengths) / sum(whole.lengths)
    assert part.run.flops["train"] == pytest.approx(share * whole.run.flops["train"])
