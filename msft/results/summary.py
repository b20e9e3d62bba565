"""What a finished run says of itself in a terminal: plain text, from what is in its directory."""

import shlex
import textwrap

from msft.data.judges import PREFIX
from msft.data.metrics import LABELS, LOSS
from msft.results.history import comparable, own_scales, watched
from msft.results.leads import doubts
from msft.results.progress import clock
from msft.results.run import Run
from msft.settings import DTYPES


def summary(run: Run) -> str:
    """The best checkpoint, every sub-dataset before training and there, who was dropped when, time, and how to go on."""
    best, result, history, config = run.best, run.result, run.history, run.config
    table = run.at_best.set_index("task")[["accuracy", "n"]]
    table["base"] = history.iloc[: len(table)].set_index("task").accuracy  # the first point of every run is the base
    seconds, ends = result["seconds"], {t: f"  epoch {at:g}" for t, at in run.dropped.items() if at is not None}
    width = max(len("sub-dataset"), *map(len, table.index))
    apart, shown = own_scales(history), list(comparable(run.at_best).task)
    form, scale = (".4g", 1) if apart.issuperset(shown) else (".1%", 100)
    of_shown = table.loc[shown]
    mean = of_shown[["base", "accuracy"]].mul(of_shown.n, axis=0).sum() / of_shown.n.sum()
    rows = [(task, row, 1 if task in apart else 100) for task, row in table.iterrows()] + [("all items", mean, scale)]
    lines = [
        f"{config.method} on {run.about['mixture']['name']}, {config.model}, seed {config.seed}: finished in "
        f"{clock(seconds['total'])}{' since it went on' if result.get('resumed') else ''}",
        f"best checkpoint: accuracy {best.accuracy:{form}} at epoch {best.path_epoch:g}, in {best.path}",
        "",
        f"  {'sub-dataset':{width}}  {'base':>6}  {'best':>6}  {'points':>6}" + ("  dropped at" if ends else ""),
    ]
    for name, row, by in rows:
        shares = f"{by * row.base:6.1f}  {by * row.accuracy:6.1f}  {by * (row.accuracy - row.base):+6.1f}"
        lines.append(f"  {name:{width}}  {shares}{'' if row is mean else ends.get(name, '')}")
    highest = history[history.task.isin(set(shown) - apart)].groupby("task").accuracy.max()
    if len(highest) and (highest <= table.base[highest.index]).all():
        lines += [
            "  NOTHING WAS LEARNED: no sub-dataset is ever above the base model. See the answers in outputs/: a rate too",
            "  low for bf16 weights (take --precision mixed), answers not in the format, or cut by --max-new-tokens?",
        ]
    elif not best.path_epoch:
        lines.append("  this is the base model, unchanged: no later evaluation was better on average")
    for task, metric in run.metrics.items():
        lines += [f"  {task}: judged by {metric}"] if metric.startswith(PREFIX) else []
        lines += [f"  {task}: {LABELS[LOSS]}, in %, where others have accuracy"] if metric == LOSS else []
    if config.select_metric == LOSS:
        loss = -result["best"]["selection"]
        lines.append(f"  chosen by the held-out loss of {config.select_on} items, {loss:.3f} nats a token there")
    for label, column in watched(history).items():
        start, end = history[column].iloc[0], run.at_best[column].iloc[0]
        lines.append(f"  {label}, only watched: {start:.4g} before, {end:.4g} at the best checkpoint")
    lines += [textwrap.fill(f"  {doubt}", 100, subsequent_indent="    ") for doubt in doubts(run.leads)]
    kinds = {"training": "train", "evaluation": "evaluate", "saving": "save"}
    shares = {what: seconds[name] / seconds["total"] for what, name in kinds.items()}
    shares["the rest"] = 1 - sum(shares.values())
    lines += ["", "  time: " + ", ".join(f"{what} {share:.0%}" for what, share in shares.items())]
    for what, path in result.get("paths", {}).items():
        if path != "packed":
            lines.append(f"  {what}: {path}")
    lines += [f"  {confirmed}"] if (confirmed := confirmed_text(run)) else []
    flops = run.flops
    parts = {"training": flops["train"], "evaluation": flops["evaluate"], "look-ahead": flops["look_ahead"]}
    spent = ", ".join(f"{what} {part / flops['total']:.0%}" for what, part in parts.items() if part)
    lines += [f"  FLOPs (appendix F): {flops['total']:.2e}, of which {spent}", ""]
    dtype = DTYPES[config.answers]
    base = f"{run.about['model']['source']},peft=" if config.adapter else ""
    model = shlex.quote(f"pretrained={base}{best.path},dtype={dtype}")
    lines += [
        "  go on: a folder to share, the stock command line's measure, the history in Python",
        f"    python -m msft export {shlex.quote(str(run.directory))} NEW_FOLDER",
        f"    lm_eval --model hf --model_args {model} \\",
        f"      --include_path {shlex.quote(str(run.directory / 'tasks'))} --tasks msft_run",
        f"    msft.Run({str(run.directory)!r}).history",
    ]
    return "\n".join(line.rstrip() for line in lines)


def confirmed_text(run: Run) -> str:
    """What items that nothing was chosen on say of the checkpoint; '' where there are none."""
    if not len(table := run.confirmation):
        return ""
    base, best = (100 * table[name].mul(table.n).sum() / table.n.sum() for name in ("base", "best"))
    return f"Confirmed on {table.n.sum()} items that nothing was chosen on: {best:.1f} % (base {base:.1f} %)."
