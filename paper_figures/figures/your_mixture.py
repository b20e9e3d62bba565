"""The guide's side: a made-up user's folder of JSONL, its checks, who over-fitted when, and what it brought."""

import dataclasses
import json
import random
import shutil
import textwrap
from pathlib import Path

import pandas as pd
import yaml
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

import msft
from msft import adapter, names, tiny
from msft.data.metrics import LABELS, LOSS
from msft.errors import ConfigError, DataError, ModelError
from msft.results.history import comparable, own_scales
from paper_figures import data, findings, profiles
from paper_figures.instrument.mixtures import generated
from paper_figures.style import SMALLEST, colour, label, legend, panels, pretty, say

CHAT_TEMPLATE = (
    "{% for m in messages %}{{ m.role }}: {{ m.content }}{% if m.role == 'assistant' %}{{ eos_token }}{% endif %}"
    "{{ '\\n' }}{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}"
)
METRICS = {"chats": "number_match", "notes": LOSS, "labels": "", "metals": "exact_match"}
_SIZES = {"smoke": (24, 12)}  # train and test rows of a sub-dataset
_OTHERS = (96, 64)


def make_folder(folder: Path, train: int, test: int, with_chats: bool = True) -> Path:
    """Writes a made-up user's data, <name>/train.jsonl and test.jsonl; returns the folder.

    train, test: rows of each at most.  chats: conversations, or plain rows without with_chats.  notes: free text without one
    right answer.  labels: half of the train labels are wrong.  metals: clean.  All but the notes are items of the tiny
    mixture.
    """
    rng, rows = random.Random(20), {}
    for name, source in (("labels", "stones"), ("metals", "metals"), ("chats", "holders")):
        sub = generated("tiny", clean=name != "labels")[source]
        make = _chat if name == "chats" and with_chats else _row
        rows[name] = [[make(e) for e in part] for part in (sub.train[:train], sub.test[:test])]
    notes = [_note(rng, i) for i in range(train + test)]
    rows["notes"] = [notes[:train], notes[train:]]
    for name in METRICS:
        (folder / name).mkdir(parents=True, exist_ok=True)
        for part, lines in zip(("train", "test"), rows[name], strict=True):
            text = "".join(json.dumps(line) + "\n" for line in lines)
            (folder / name / f"{part}.jsonl").write_text(text, encoding="utf-8")
    return folder


def _row(example) -> dict:
    rationale = example.target.split("####")[0].strip()
    return {"question": example.question, "answer": example.answer} | ({"rationale": rationale} if rationale else {})


def _chat(example) -> dict:
    pairs = (("system", "You say who has it."), ("user", example.question), ("assistant", example.answer))
    return {"messages": [{"role": role, "content": content} for role, content in pairs]}


def _note(rng: random.Random, number: int) -> dict:
    places, name = (
        rng.sample("here there inside outside above below near far".split(), 3),
        rng.choice("ann bo cy".split()),
    )
    return {
        "question": f"Tell of day {number} of {name}.",
        "answer": f"{name} was {places[0]}, and then {places[1]} or {places[2]}.",
    }


def write_yaml(folder: Path, metrics: dict[str, str]) -> Path:
    """The mixture file over a folder's <name>/train.jsonl and test.jsonl; one that is there is left as it is.

    metrics: {sub-dataset: metric}; those not named have the paper's scorer. Raises DataError for an empty folder.
    """
    path = folder / "mixture.yaml"
    if path.is_file():
        return path
    names = sorted(file.parent.name for file in folder.glob("*/train.jsonl") if (file.parent / "test.jsonl").is_file())
    if not names:
        raise DataError(f"{folder} holds no <name>/train.jsonl with a test.jsonl beside it: one folder a sub-dataset")
    entries = [
        {"name": name, "train": f"{name}/train.jsonl", "test": f"{name}/test.jsonl"}
        | ({"metric": metrics[name]} if metrics.get(name) else {})
        for name in names
    ]
    path.write_text(yaml.safe_dump({"name": folder.name, "sub_datasets": entries}, sort_keys=False), encoding="utf-8")
    return path


def make_model(folder: Path, name: str) -> Path:
    """A tiny base model as a user's own folder, with a chat template; returns the folder."""
    if not (folder / "chat_template.jinja").is_file():
        shutil.copytree(tiny.base_model(name), folder, dirs_exist_ok=True)
        (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE, encoding="utf-8")
    return folder


def prepare(page, mixture_dir: str = "") -> tuple[Path, str]:
    """(mixture YAML, model) of the guide: the user's own, or those made up beside the runs."""
    is_other = page.mixture != profiles.profile(page.profile)["mixture"]
    for name in ["mixture"] * is_other + ["data_dir"] * ("data_dir" in page.settings):
        print(f"The parameter {name!r} is not used by this page: `mixture_dir` is the folder of your data.")
    with_chats = bool(mixture_dir) or _takes_chats(page.focus)
    made_up = page.runs_dir / ("my_mixture" if with_chats else "my_mixture_without_chats")
    folder = Path(str(mixture_dir)).expanduser() if mixture_dir else made_up
    if not mixture_dir and not (folder / "mixture.yaml").is_file():
        make_folder(folder, *_SIZES.get(page.profile, _OTHERS), with_chats)
    path = write_yaml(folder, {} if mixture_dir else METRICS)
    if page.focus in tiny.MODELS:
        return path, str(make_model(page.runs_dir / f"my_{page.focus}", page.focus))
    return path, page.focus


def _takes_chats(model: str) -> bool:
    """Whether a model has a chat template, as many base models have not; one that is not at hand may have one."""
    try:
        return model in tiny.MODELS or bool(names.load_tokenizer(names.model_source(model)).chat_template)
    except ModelError:
        return True


def needs(page, mixture_dir: str = "") -> dict:
    """SFT and mSFT on the user's mixture and model."""
    path, model = prepare(page, mixture_dir)
    return {method: _config(page, method, path, model) for method in ("sft", "msft")}


def _config(page, method: str, path: Path, model: str):
    # the copy of a tiny model in a folder has no name to know its settings by
    known = tiny.settings(page.focus) if page.focus in tiny.MODELS else {}
    settings = {name: value for name, value in known.items() if name not in page.settings}
    return page.config(method, model=model, mixture=str(path), **settings)


OWN_DATA = """name: my_data
sub_datasets:
  - {name: metals, train: metals.parquet, format: alpaca, metric: {lm_eval: metals_told, include_path: tasks}}
  - {name: claims, train: claims.csv, template: "{context} {query}", columns: {answer: reply}, test_split: 0.4}
"""
_CHATS = "  - {name: chats, train: chats.jsonl, format: openai, test_split: 0.4, metric: number_match}\n"
_OF_TINY = ("metals", "claims", "holders")
# a task of lm-eval as its user writes it; the path of its data is filled in
TASK = """task: metals_told
dataset_path: json
dataset_kwargs: {data_files: {test: FILE}}
test_split: test
output_type: generate_until
doc_to_text: "Q: {{instruction}}\\n{{input}}\\nA: "
doc_to_target: output
generation_kwargs: {until: ["\\n"], max_gen_toks: 16}
filter_list: [{name: told, filter: [{function: regex, regex_pattern: "#### *([a-z]+)"}, {function: take_first}]}]
metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]
"""


def own_data(page) -> tuple[Path, dict]:
    """(a mixture over data as it lies, made up once; mSFT on it with an adapter, where peft is installed).

    An Alpaca-shaped parquet file that a task of lm-eval judges, a CSV of four columns and a JSONL of chats. A model without
    a chat template gets no chats.
    """
    folder, mixture, with_chats = page.runs_dir / "my_data", tiny.make_mixture("tiny"), _takes_chats(page.focus)
    path, (train, test) = folder / "mixture.yaml", _SIZES.get(page.profile, _OTHERS)
    if not path.is_file():
        (folder / "tasks").mkdir(parents=True, exist_ok=True)
        metals, claims, holders = ((s.train + s.test)[: train + test] for s in (mixture[name] for name in _OF_TINY))
        parts = [(*e.question.rsplit(". ", 1), e.answer) for e in metals]
        alpaca = [{"instruction": asked, "input": f"{said}.", "output": answer} for said, asked, answer in parts]
        pd.DataFrame(alpaca[:train]).to_parquet(folder / "metals.parquet")
        judged = folder.absolute() / "tasks" / "metals.jsonl"
        judged.write_text("".join(json.dumps(row) + "\n" for row in alpaca[train:]), encoding="utf-8")
        task = TASK.replace("FILE", json.dumps(str(judged)))
        (folder / "tasks" / "metals_told.yaml").write_text(task, encoding="utf-8")
        parts = [(*e.question.rsplit(". ", 1), e.answer) for e in claims]
        table = [(i, f"{said}.", asked, answer) for i, (said, asked, answer) in enumerate(parts)]
        pd.DataFrame(table, columns=["id", "context", "query", "reply"]).to_csv(folder / "claims.csv", index=False)
        lines = "".join(json.dumps(_chat(example)) + "\n" for example in holders)
        (folder / "chats.jsonl").write_text(lines, encoding="utf-8")
        path.write_text(OWN_DATA + (_CHATS if with_chats else ""), encoding="utf-8")
    config = _config(page, "msft", path, prepare(page)[1])
    return path, {"msft": config if config.adapter else _with_adapter(config, "learning_rate" in page.settings)}


def _with_adapter(config, is_rate_given: bool):
    """The run with an adapter, at ten times the rate of full training; as it is, and said, where peft is missing."""
    try:
        adapter.available()
    except ConfigError as error:
        print(f"{error}. Here all weights are trained instead.")
        return config
    rate = names.filled(config).learning_rate * (1 if is_rate_given else 10)
    return dataclasses.replace(config, adapter="lora", lora_target_modules="all-linear", learning_rate=rate)


def broken_rows(folder: Path) -> str:
    """What the checks say of a folder with mistakes that happen: the message, all at once."""
    bad = folder / "bad"
    bad.mkdir(parents=True, exist_ok=True)
    rows = [
        '{"question": "1 + 1?", "anwser": "2"}',
        '{"question": "1 + 1?", "answer": 2}',
        '{"messages": [{"role": "user", "content": "1 + 1?"}]}',
        '{"messages": [{"role": "user", "content": ""}, {"role": "bot", "content": "2"}]}',
        '{"question": "How many?", "answer": "a few"}',
        "{not JSON at all",
    ]
    (bad / "train.jsonl").write_text("\n".join(rows[:5]) + "\n", encoding="utf-8")
    (bad / "test.jsonl").write_text(rows[5] + "\n", encoding="utf-8")
    entry = {"name": "bad", "train": "bad/train.jsonl", "test": "bad/test.jsonl", "metric": "number_match"}
    (folder / "bad.yaml").write_text(yaml.safe_dump({"sub_datasets": [entry]}), encoding="utf-8")
    try:
        msft.load_mixture(folder / "bad.yaml")
    except DataError as error:
        return str(error).replace(f"{folder}/", "")
    return ""


CURVES_CAPTION = (
    "Score on the test items (%) of each sub-dataset under mSFT, in the order in which it dropped them, against the epoch along the "
    "kept path; the line above each panel names the metric. A star off the curve: a checkpoint of a roll-out that was rolled back."
)


def curves(run, axes=None, sft=None):
    """Score of each sub-dataset against epoch: the kept path in colour, what was rolled out and taken back in grey.

    A dotted line stands where mSFT dropped the sub-dataset, from there on its curve is pale; the star is the run's
    best checkpoint.  axes: a flat array with one axes a sub-dataset, made where absent.  sft: the run that the title
    compares it with, whose best checkpoint is a level line. Returns the axes.
    """
    dropped, shade = data.drops(run), colour(run.config.method)
    history, path, at_best = run.history, data.path(run), _shown(data.at_best(run), run)
    history["shown"], path["shown"] = (_shown(f.set_index("task").accuracy, run).to_numpy() for f in (history, path))
    tasks = [*dropped, *(task for task in history.task.unique() if task not in dropped)]
    if axes is None:
        columns = 5 if len(tasks) > 6 else 3
        axes = panels(len(tasks), "epoch along the kept path", "score on the test items (%)", 1.3, columns, "x")
    # a star off the path is joined to it, also where the sub-dataset was dropped before
    stage = run.result["best"]["stage"]
    left = data.stages(run).set_index("stage").kept_until[stage]
    to_star = (history.stage == stage) & history.path_epoch.between(left, run.best.path_epoch)
    for axis, task in zip(axes, tasks, strict=True):
        rows = history[(history.task == task) & (history.active | to_star)]
        _scores(axis, rows, path[path.task == task], dropped.get(task), shade)
        axis.scatter(
            run.best.path_epoch, at_best[task], marker="*", s=42, color=shade, zorder=3, edgecolor="white", lw=0.4
        )
        if sft is not None:
            axis.axhline(_shown(data.at_best(sft), run)[task], color=colour("sft"), ls="--", lw=0.8, zorder=1)
        metric = run.metrics.get(task, "")
        axis.set_title(f"{pretty(task)}\n{textwrap.fill(LABELS.get(metric, metric), 24)}", fontsize=SMALLEST)
        axis.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        axis.margins(y=0.1)
        top = max(1.1 * axis.dataLim.y1, 0.1)  # from 0 on, also where nothing was ever right
        axis.set_ylim(-0.04 * top, top)
    shown = [Line2D([], [], color=shade, lw=1.2, label=f"{label(run.config.method)}, trained on it")]
    if dropped:
        shown += [
            Line2D([], [], color=shade, ls=":", label="dropped"),
            Line2D([], [], color=shade, lw=0.9, alpha=0.4, label="no longer trained on it"),
            Line2D([], [], color="0.75", lw=0.8, label="rolled back"),
        ]
    shown.append(Line2D([], [], color=shade, marker="*", ls="", ms=6, mec="white", mew=0.4, label="best checkpoint"))
    if sft is not None:
        shown.append(Line2D([], [], color=colour("sft"), ls="--", lw=0.8, label="SFT's best"))
    legend(axes[0].figure, shown)
    words = f"drops {len(dropped)} of {len(tasks)} sub-datasets" + (
        f", between epochs {min(dropped.values()):g} and {max(dropped.values()):g}" if dropped else ""
    )
    ends = (
        f"; its best checkpoint is at epoch {run.best.path_epoch:g}"
        if sft is None
        else f"; it ends {_beside(sft, run)}"
    )
    return say(axes, f"{label(run.config.method)} {words}{ends}")


def _shown(scores: pd.Series, run) -> pd.Series:
    """Scores by sub-dataset in percent; a judge's value that has a scale of its own as it is."""
    return scores.where(scores.index.isin(own_scales(run.history)), 100 * scores)


def _scores(axis, rows: pd.DataFrame, path: pd.DataFrame, end: float | None, shade) -> None:
    """The roll-outs of a sub-dataset in grey, over them its kept path, pale from the epoch `end` of its exclusion on."""
    for _, stage in rows.groupby("stage"):
        axis.plot(stage.path_epoch, stage.shown, color="0.75", lw=0.8)
    kept = path.sort_values("path_epoch")
    last = kept.path_epoch.max() if end is None else end
    trained, after = kept[kept.path_epoch <= last], kept[kept.path_epoch >= last]
    axis.plot(trained.path_epoch, trained.shown, color=shade, lw=1.2)
    axis.plot(after.path_epoch, after.shown, color=shade, lw=0.9, alpha=0.4)
    if end is not None:
        axis.axvline(end, color=shade, ls=":")


COMPARISON_CAPTION = (
    "Score (%) of each sub-dataset before training and at the best checkpoint of SFT and mSFT, and the epoch at which mSFT dropped "
    "it. The mean mixes the metrics."
)


def comparison(sft, ours) -> pd.DataFrame:
    """A row a sub-dataset: its metric, the score (%) before training and at the best checkpoints, when mSFT dropped it."""
    dropped, metrics = data.drops(ours), ours.metrics
    table = pd.DataFrame(
        {
            "metric": {task: LABELS.get(metric, metric) for task, metric in metrics.items()},
            "base": _shown(data.at_base(ours), ours),
            "SFT": _shown(data.at_best(sft), ours),
            "mSFT": _shown(data.at_best(ours), ours),
            "dropped at epoch": pd.Series(dropped, dtype=float),
        }
    ).loc[list(metrics)]
    counted = list(comparable(ours.at_best).task)
    means = {name: table.loc[counted, name].mean() for name in ("base", "SFT", "mSFT")}
    table.loc["mean"] = {"metric": "mixed", **means, "dropped at epoch": float("nan")}
    return table.rename_axis("sub-dataset")


def _gains(sft, ours) -> tuple[pd.Series, str]:
    """Points over SFT by sub-dataset, of those whose scores can be averaged, and the word for their mean."""
    gains = 100 * (data.at_best(ours) - data.at_best(sft))[list(comparable(ours.at_best).task)]
    return gains, "ahead of" if gains.mean() > 0 else "behind" if gains.mean() < 0 else "level with"


def _beside(sft, ours) -> str:
    """Where the mean score ends beside SFT's, with one run each."""
    gains, word = _gains(sft, ours)
    tell = "" if abs(gains.mean()) > findings.half_width(gains) else ": cannot tell"
    return f"{abs(gains.mean()):.1f} points {word} SFT (one run each{tell})"


_CHOSEN = ", and choose on validation files (select_on='validation'), since the scores that are shown also chose the checkpoint."


def finding(sft, ours) -> str:
    """Who over-fitted in which order and what it brought, whoever won, and what one run each leaves open."""
    order = ", ".join(f"{pretty(task)} at epoch {epoch:g}" for task, epoch in data.drops(ours).items()) or "nobody"
    gains, word = _gains(sft, ours)
    return (
        f"Dropped in this order: {order}; mSFT is {word} SFT by {abs(gains.mean()):.1f} ± {findings.half_width(gains):.1f} points "
        f"(mean and 95 % interval over n = {len(gains)} sub-datasets, one run each). One run each concludes nothing: repeat them with "
        "other seeds" + (_CHOSEN if ours.config.select_on == "test" else ".")
    )
