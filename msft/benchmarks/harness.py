"""A second protocol: lm-eval's own tasks for the same benchmarks, to tell knowledge from format.

    scores = harness.evaluate(model, tokenizer)          # a row a benchmark

The paper's protocol asks for a generated answer behind '####', so a base model that knows an answer can still score
near zero. Here multiple choice is scored by the log-likelihood of each option, five-shot, with the benchmark's stock
prompt; the gap between the two is what format following explains. Shots are drawn by lm-eval with its own seed.
AQuA-RAT is AGIEval's version, which has a test split alone: its shots are other test items.
"""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from msft.benchmarks.records import BENCHMARKS
from msft.errors import DataError, unknown
from msft.generation.lm import PrefixCachedLM

HARNESS_TASKS = {
    "commonsense_qa": "commonsense_qa",
    "openbookqa": "openbookqa",
    "aqua_rat": "agieval_aqua_rat",
    "gsm8k": "gsm8k",
    "sciq": "sciq",
    "arc_easy": "arc_easy",
    "hellaswag": "hellaswag",
    "winogrande": "winogrande",
    "boolq": "boolq",
    "medmcqa": "medmcqa",
}
# GSM8K has no options: its answer is generated, and any last number counts, whatever stands before it
_METRICS = ("acc,none", "exact_match,flexible-extract", "exact_match,none")
_WAYS_OUT = (
    "lm-eval's stock tasks read their data from the hub: allow https access to huggingface.co and its file hosts "
    "(*.hf.co), or, where the datasets are in the local cache already, set HF_HUB_OFFLINE=1. The paper's own protocol "
    "needs no hub with data_dir."
)


def evaluate(
    model,
    tokenizer,
    names: Sequence[str] | None = None,
    limit: int | None = None,
    batch_size: int = 32,
    include_path: str | Path | None = None,
) -> pd.DataFrame:
    """Five-shot accuracy of lm-eval's own tasks: one row a benchmark, columns task, metric, accuracy 0..1, n.

    names: benchmarks, keys of HARNESS_TASKS; all ten by default.
    limit: the first items of each test set only.  batch_size: items a forward pass.
    include_path: a folder with lm-eval tasks of one's own; their task names may then stand in `names`.
    Raises DataError for an unknown name and for data that cannot be read.
    """
    own = _own(include_path).all_subtasks if include_path is not None else []
    names = list(HARNESS_TASKS) if names is None else list(names)
    allowed = [*HARNESS_TASKS, *own]
    for name in names:
        if name not in allowed:
            raise DataError(unknown("benchmark", name, allowed))
    if not names:
        raise DataError("names is empty; leave it out for all ten benchmarks")
    tasks = {name: name if name in own else HARNESS_TASKS[name] for name in names}
    _check_hub([BENCHMARKS[name].hub_id for name in names if name not in own])
    results = simple_evaluate(PrefixCachedLM(model, tokenizer, batch_size), list(tasks.values()), limit, include_path)
    rows = []
    for task in tasks.values():
        scores = results["results"][task]
        metric = next((m for m in _METRICS if m in scores), None)
        if metric is None:
            raise DataError(f"the task {task} gives no accuracy; it has {', '.join(sorted(scores))}")
        n = results["n-samples"][task]["effective"]
        rows.append({"task": task, "metric": metric, "accuracy": scores[metric], "n": n})
    return pd.DataFrame(rows, index=pd.Index(tasks, name="benchmark"))


def simple_evaluate(lm, tasks: Sequence[str], limit: int | None = None, include_path=None) -> dict:
    """lm-eval's results, `samples` included, of an LM on tasks by name, five-shot.

    No standard errors, and no random generator but lm-eval's own is seeded. Raises DataError for data that cannot
    be read.
    """
    import lm_eval
    from lm_eval.tasks import get_task_dict

    manager = _manager(tasks, include_path)
    try:
        loaded = list(get_task_dict(list(tasks), manager).values())
    except Exception as error:  # datasets' own, httpx's and built-in errors
        raise DataError(f"the data of {', '.join(tasks)} cannot be read ({_said(error)}). {_WAYS_OUT}") from error
    return lm_eval.simple_evaluate(
        model=lm,
        tasks=loaded,
        num_fewshot=5,
        task_manager=manager,
        limit=limit,
        bootstrap_iters=0,
        random_seed=None,
        numpy_random_seed=None,
        torch_random_seed=None,
    )


def _own(include_path: str | Path):
    """lm-eval's index of the tasks of one folder."""
    from lm_eval.tasks import TaskManager

    if not Path(include_path).is_dir():
        raise DataError(f"include_path {str(include_path)!r} is no folder")
    return TaskManager(include_path=str(include_path), include_defaults=False)


def _manager(tasks: Sequence[str], include_path: str | Path | None):
    """lm-eval's index of tasks: that of one's own folder where it has them all, since the whole takes seconds."""
    if include_path is not None:
        own = _own(include_path)
        if all(name in own.all_subtasks for name in tasks):
            return own
    from lm_eval.tasks import TaskManager

    return TaskManager(include_path=None if include_path is None else str(include_path))


def _check_hub(hub_ids: Sequence[str]) -> None:
    """One request without retries: `load_dataset` would try for minutes where there is no network."""
    import huggingface_hub

    if not hub_ids or huggingface_hub.is_offline_mode():
        return
    try:
        huggingface_hub.HfApi().dataset_info(hub_ids[0], timeout=10)
    except Exception as error:  # no network, a proxy: httpx's and the hub's own errors
        raise DataError(f"{hub_ids[0]} cannot be reached ({_said(error)}). {_WAYS_OUT}") from error


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error)[:200]}"
