"""The model card of a finished run: what it is, what it was trained on, who over-fitted when, and how it was made."""

import dataclasses
from pathlib import Path

import yaml

from msft.config import RunConfig
from msft.data.metrics import LABELS, LOSS
from msft.results.run import Run

_TO_FILL = "fill in before you publish"


def text(run: Run, name: str) -> str:
    """The card in Markdown with its YAML front matter. name: of the exported model."""
    about, config, best = run.about, run.config, run.best
    sets = about["mixture"]["sub_datasets"]
    base = _public(config.model)
    history, flops = run.history, run.flops
    start = history[(history.stage == 0) & (history.epoch == 0)].set_index("task").accuracy
    end = run.at_best.set_index("task").accuracy
    dropped = run.dropped
    rows = [
        [task, facts["train"], facts["test"], LABELS.get(facts.get("metric", ""), "accuracy")]
        + ["–" if dropped[task] is None else f"{dropped[task]:g}", f"{100 * start[task]:.1f}", f"{100 * end[task]:.1f}"]
        for task, facts in sets.items()
    ]
    head = ["sub-dataset", "train", "test", "metric", "dropped at epoch", "before (%)", "after (%)"]
    losses = [task for task, facts in sets.items() if facts.get("metric") == LOSS]
    selected = "held-out validation items" if config.select_on == "validation" else "the test items themselves"
    optimistic = (
        "The test figures were not used for any choice."
        if config.select_on == "validation"
        else "The figures above are therefore optimistic; measure on data that was never looked at before you rely on them."
    )
    fields = [field.name for field in dataclasses.fields(RunConfig) if field.metadata["result"]]
    settings = {name: getattr(config, name) for name in fields if getattr(config, name) is not None}
    settings |= {"model": base, "mixture": _name(config)}
    lines = [
        _front_matter(config, sets),
        f"# {name}",
        f"{base} fine-tuned on the mixture `{about['mixture']['name']}` with {_METHODS.get(config.method, config.method)}. "
        f"This is the checkpoint that the run reports, at epoch {best.path_epoch:g} of its path: "
        f"{100 * best.accuracy:.1f} % on average over all test items.",
        "## Mixture and results",
        _table(head, rows),
        "'Dropped at' is the epoch along the kept path at which a sub-dataset left the training, '–' where it never did.",
    ]
    if losses:
        lines.append(
            f"{', '.join(losses)}: no checkable answer; the figure is exp(-held-out loss), the geometric mean of the "
            "probabilities that the model gives the target tokens. It is no accuracy, and the average above mixes the two."
        )
    lines += [
        "## Who over-fitted when",
        "![Curves of every sub-dataset](curves.png)",
        "## How the checkpoint was chosen",
        f"Peaks and the best checkpoint were chosen on {selected}. {optimistic}",
        "## How it was made",
        f"```\n{command(config)}\n```",
        f"{flops['total']:.3g} FLOPs in all (training {flops['train']:.3g}, evaluation {flops['evaluate']:.3g}), seed "
        f"{config.seed}; msft {about['versions'].get('msft', '?')}, torch {about['versions'].get('torch', '?')}, "
        f"transformers {about['versions'].get('transformers', '?')}.",
        f"```yaml\n{yaml.safe_dump(settings, sort_keys=False).strip()}\n```",
        "## To fill in",
        f"- licence of this model: {_TO_FILL}; it must agree with those of the base model and of the data\n"
        f"- licence of {base}: {_TO_FILL}\n"
        + "\n".join(
            f"- data of {task}: source {_source(facts)}, licence {facts.get('source', {}).get('licence') or _TO_FILL}"
            for task, facts in sets.items()
        )
        + f"\n- intended use, limits: {_TO_FILL}",
    ]
    return "\n\n".join(lines) + "\n"


_METHODS = {
    "msft": "mSFT: it trains all sub-datasets, goes back to where the first one over-fitted, drops that one, and goes on",
    "sft": "plain supervised fine-tuning on all sub-datasets",
}


def command(config: RunConfig) -> str:
    """What trains the run elsewhere: folders of this machine by their last name."""
    of_machine = [field.name for field in dataclasses.fields(RunConfig) if not field.metadata["result"]]
    return config.command_line(model=_public(config.model), mixture=_name(config), **dict.fromkeys(of_machine))


def _front_matter(config: RunConfig, sets: dict) -> str:
    facts = {"license": "unknown", "library_name": "transformers", "pipeline_tag": "text-generation"}
    facts["tags"] = ["msft", "sft", "text-generation"]
    if _is_hub(config.model):
        facts["base_model"] = config.model
    ids = dict.fromkeys(s["source"]["hub_id"] for s in sets.values() if s.get("source", {}).get("hub_id"))
    if ids:
        facts["datasets"] = list(ids)
    body = yaml.safe_dump(facts, sort_keys=False).replace("license: unknown", f"license: unknown  # {_TO_FILL}")
    return f"---\n{body}---"


def _table(head: list, rows: list[list]) -> str:
    cells = [[str(cell).replace("|", "\\|") for cell in row] for row in [head, *rows]]
    lines = ["| " + " | ".join(row) + " |" for row in cells]
    return "\n".join([lines[0], "|" + "---|" * len(head), *lines[1:]])


def _is_hub(model: str) -> bool:
    return model.count("/") == 1 and not model.startswith((".", "/", "~")) and not Path(model).exists()


def _public(model: str) -> str:
    # a folder's path says more of a machine than a reader needs
    return model if _is_hub(model) else Path(model).name


def _name(config: RunConfig) -> str:
    return Path(config.mixture).name


def _source(facts: dict) -> str:
    source = facts.get("source", {})
    return source.get("hub_id") or source.get("source") or _TO_FILL
