"""A mixture's test sets as lm-eval tasks: built in memory for a run, or written as files for the stock command.

    lm_eval --model hf --model_args pretrained=<run>/best --include_path <run>/tasks --tasks msft_run

Both are the same tasks, so that the stock command gives a run's answers from its saved checkpoint.
"""

import contextlib
import io
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

import yaml

from msft.data import scoring
from msft.data.example import Example, documents, shot_text, training_text
from msft.data.metrics import LOSS
from msft.data.mixture import Mixture, SubDataset
from msft.store.files import write_atomic

GROUP = "msft_run"


def task_name(sub_dataset: str) -> str:
    """The lm-eval task name of a sub-dataset."""
    # a file's name too: no folder of its own, and never the group's name
    return f"msft_task_{quote(sub_dataset, safe=' &,+')}"


def task_config(sub: SubDataset, max_new_tokens: int) -> dict:
    """The lm-eval task of a sub-dataset, but for its data and its scorer."""
    texts = [(training_text(shot)[0], shot_text(shot)) for shot in sub.shots]
    samples = [{"prompt": prompt, "target": text.removeprefix(prompt)} for prompt, text in texts]
    until = [sub.stop] if sub.stop else []
    return {
        "task": task_name(sub.name),
        "test_split": "test",
        "output_type": "generate_until",
        "num_fewshot": len(samples),
        "doc_to_text": "prompt",
        "doc_to_target": "target",
        "target_delimiter": "",
        "fewshot_delimiter": "\n",
        **({"fewshot_config": {"sampler": "first_n", "samples": samples}} if samples else {}),
        "generation_kwargs": {"until": until, "max_gen_toks": max_new_tokens, "do_sample": False},
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
        "metadata": {"version": 1.0},
    }


def write_tasks(folder: Path, mixture: Mixture, max_new_tokens: int, part: str = "test") -> None:
    """Writes a part of the mixture, its test sets, as lm-eval task files: YAML, JSONL and the scorer, nothing else needed.

    What is measured by its loss is no generation task; the group's file names it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / "scoring.py", Path(scoring.__file__).read_bytes())
    tasks = {task_name(sub.name): sub for sub in mixture if sub.metric != LOSS and getattr(sub, part)}
    for name, sub in tasks.items():
        rows = "".join(json.dumps(row) + "\n" for row in documents(getattr(sub, part), sub.metric))
        write_atomic(folder / f"{name}.jsonl", rows)
        config = task_config(sub, max_new_tokens) | {"dataset_kwargs": {"file": f"{name}.jsonl"}}
        text = yaml.safe_dump(config, sort_keys=False, allow_unicode=True)
        # the tag that makes lm-eval call a function cannot be written by a safe dump
        text += "custom_dataset: !function scoring.dataset\nprocess_results: !function scoring.process_results\n"
        write_atomic(folder / f"{name}.yaml", text)
    mean = {"metric": "acc", "aggregation": "mean", "weight_by_size": True}
    group = {"group": GROUP, "task": list(tasks), "aggregate_metric_list": [mean]}
    text = yaml.safe_dump(group, sort_keys=False) if tasks else ""
    if others := [sub.name for sub in mixture if sub.metric == LOSS and not sub.judge]:
        text = f"# no task, since their metric is held-out loss: {json.dumps(others)}\n" + text
    if judged := {sub.name: sub.judge.label for sub in mixture if sub.judge}:
        text = f"# no task here, since they are judged by tasks of their own: {json.dumps(judged)}\n" + text
    write_atomic(folder / f"{GROUP}.yaml", text)


def build_task(sub: SubDataset, examples: Sequence[Example], max_new_tokens: int):
    """An lm-eval task over examples of a sub-dataset, its requests built."""
    from datasets import Dataset
    from lm_eval.api.task import ConfigurableTask

    rows = documents(examples, sub.metric)
    config = task_config(sub, max_new_tokens)
    config |= {"custom_dataset": lambda **_: {"test": Dataset.from_list(rows)}}
    config |= {"process_results": scoring.process_results}
    with quiet():
        task = ConfigurableTask(config=config)
        task.build_all_requests()
    return task


@contextlib.contextmanager
def quiet():
    """lm-eval draws a bar and logs a line a task while it builds; a run says what it does itself."""
    logger = logging.getLogger("lm_eval")
    with contextlib.redirect_stderr(io.StringIO()), contextlib.ExitStack() as undo:
        undo.callback(logger.setLevel, logger.level)
        logger.setLevel(logging.ERROR)
        yield
