"""The model card of a finished run, and its picture: trained on what, who over-fitted when, how it was made."""

import dataclasses
import math
from pathlib import Path

from msft.config import RunConfig
from msft.data.metrics import LABELS, LOSS
from msft.paths import is_hub_id
from msft.results.history import comparable, kept, own_scales
from msft.results.run import Run
from msft.results.summary import confirmed_text

_TEMPLATE = Path(__file__).with_name("card_template.md")
_COLUMNS, _KEPT, _LEFT = 3, "#d55e00", "#f3c5a7"  # a colour-blind palette's vermilion, and its pale
_METHODS = {
    "msft": "mSFT: it trains all sub-datasets, goes back to where the first one over-fitted, drops that one, and goes on",
    "sft": "plain supervised fine-tuning on all sub-datasets",
}


def text(run: Run, name: str, merged: bool = False) -> str:
    """The card in Markdown with its YAML front matter. name: of the exported model.  merged: with its adapter added."""
    from huggingface_hub import ModelCard, ModelCardData

    about, config, history, dropped = run.about, run.config, run.history, run.dropped
    is_adapter = bool(config.adapter) and not merged
    facts, settings = about["mixture"]["sub_datasets"], shared_settings(config)
    start = history[(history.stage == 0) & (history.epoch == 0)].set_index("task").accuracy
    end, apart = run.at_best.set_index("task").accuracy, own_scales(history)
    sources = {task: of.get("source") or {} for task, of in facts.items()}
    on_hub = dict.fromkeys(of["hub_id"] for of in sources.values() if of.get("hub_id"))
    sets = [
        {
            "name": task,
            "train": of["train"],
            "test": of["test"],
            "metric": LABELS.get(of.get("metric", ""), of.get("metric")) + (", own scale" if task in apart else ""),
            "dropped": {None: "–", 0.0: "0 (never trained on)"}.get(dropped[task], f"{dropped[task] or 0:g}"),
            "before": start[task] if task in apart else 100 * start[task],
            "after": end[task] if task in apart else 100 * end[task],
            "source": sources[task].get("hub_id") or sources[task].get("source"),
            "licence": sources[task].get("licence"),
        }
        for task, of in facts.items()
    ]
    data = ModelCardData(
        license="unknown",
        library_name="peft" if is_adapter else "transformers",
        pipeline_tag="text-generation",
        tags=["msft", "sft", "text-generation", *([config.adapter] if config.adapter else [])],
        base_model=config.model if is_hub_id(config.model) else None,
        datasets=list(on_hub) or None,
    )
    card = ModelCard.from_template(
        data,
        template_str=_TEMPLATE.read_text(encoding="utf-8"),
        name=name,
        is_adapter=is_adapter,
        base=settings["model"],
        mixture=about["mixture"]["name"],
        method=_METHODS.get(config.method, config.method),
        best=run.best,
        sets=sets,
        losses=[task for task, of in facts.items() if of.get("metric") == LOSS],
        on_validation=config.select_on == "validation",
        share=not apart.issuperset(comparable(run.at_best).task),
        judged=[task for task, of in facts.items() if "judge" in of],
        command=command(config),
        flops=run.flops,
        settings=settings,
        versions=about["versions"],
        confirmed=confirmed_text(run),
    )
    return str(card)


def command(config: RunConfig) -> str:
    """What trains the run elsewhere: folders of this machine by their last name."""
    of_machine = [field.name for field in dataclasses.fields(RunConfig) if not field.metadata["result"]]
    shared = shared_settings(config)
    return config.command_line(model=shared["model"], mixture=shared["mixture"], **dict.fromkeys(of_machine))


def shared_settings(config: RunConfig) -> dict:
    """The settings that determine the result; folders by their last name, which is all that a reader elsewhere needs."""
    names = [field.name for field in dataclasses.fields(config) if field.metadata["result"]]
    settings = {name: getattr(config, name) for name in names if getattr(config, name) is not None}
    model = config.model if is_hub_id(config.model) else Path(config.model).name
    return {**settings, "model": model, "mixture": Path(config.mixture).name}


def draw(run: Run, path: Path) -> None:
    """Writes a PNG with a panel a sub-dataset: strong where it trained, pale after it was dropped (dotted line)."""
    from matplotlib.figure import Figure  # no global state: a caller's own figures and backend stay as they are

    history = run.history[kept(run.history)]
    tasks, dropped, metrics, apart = list(history.task.unique()), run.dropped, run.metrics, own_scales(history)
    rows = math.ceil(len(tasks) / _COLUMNS)
    figure = Figure(figsize=(3 * _COLUMNS, 1.8 * rows + 0.4), layout="constrained")
    panels = figure.subplots(rows, _COLUMNS, sharex=True, squeeze=False).flat
    for axes, task in zip(panels, tasks, strict=False):
        curve, end, scale = history[history.task == task], dropped[task], 1 if task in apart else 100
        axes.plot(curve.path_epoch, scale * curve.accuracy, color=_LEFT, linewidth=1.5)
        trained = curve if end is None else curve[curve.path_epoch <= end]
        axes.plot(trained.path_epoch, scale * trained.accuracy, color=_KEPT, linewidth=1.5)
        if end is not None:
            axes.axvline(end, color="0.5", linewidth=1, linestyle=":")
        axes.set_title(task, fontsize=9, parse_math=False)
        axes.set_ylabel(LABELS.get(metrics[task], metrics[task]) + (" (%)" if scale == 100 else ""), fontsize=8)
        axes.tick_params(labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    for axes in list(panels):
        axes.set_axis_off()
    for axes in figure.axes[:: _COLUMNS if rows > 1 else 1][-1:]:
        axes.set_xlabel("epoch", fontsize=8)
    figure.savefig(path, dpi=120, metadata={"Software": None})
