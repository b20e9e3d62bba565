"""Five-shot evaluation through lm-eval, in process, on the live model (paper section 4.1).

Tasks and requests are built once a run. The same tasks are written as files (`write_tasks`), with which the stock
command gives the same answers from the saved checkpoint:

    lm_eval --model hf --model_args pretrained=<run>/best --include_path <run>/tasks --tasks msft_run
"""

import contextlib
import io
import json
import logging
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import yaml

from msft import distributed
from msft.data import scoring
from msft.data.example import Example, decided, documents, shot_text, training_text
from msft.data.metrics import LOSS, probability
from msft.data.mixture import Mixture, SubDataset
from msft.errors import Stopped
from msft.generation import PrefixCachedLM
from msft.generation.options import greedy
from msft.loss.losses import TokenLosses
from msft.loss.tokens import tokenize
from msft.packing.attention import evaluating

GROUP = "msft_run"
_LOSS_TOKENS = 16384  # padded tokens a forward pass of held-out losses; an item's own loss does not depend on it


@dataclass(frozen=True)
class Scores:
    """One sub-dataset at one evaluation.

    accuracy: share of right answers, 0..1; with the metric loss exp(-held-out loss), `metrics.probability`.
    n: items.  tokens: question and generated tokens of all items, the shared prefix not counted (what Table 7 counts).
    outputs: the generated text of each item.  correct: whether it is right; with the metric loss no text, and
    exp(-loss) of the item.
    """

    accuracy: float
    n: int
    tokens: int
    outputs: list[str]
    correct: list[bool] | list[float]


def task_name(sub_dataset: str) -> str:
    """The lm-eval task name of a sub-dataset."""
    # a file's name too: no folder of its own, and never the group's name
    return f"msft_task_{quote(sub_dataset, safe=' &,+')}"


def task_config(sub: SubDataset, max_new_tokens: int) -> dict:
    """The lm-eval task of a sub-dataset, but for its data and its scorer."""
    shots = []
    for shot in sub.shots:
        prompt = training_text(shot)[0]
        shots.append({"prompt": prompt, "target": shot_text(shot)[len(prompt) :]})
    few = {"sampler": "first_n", "samples": shots}
    return {
        "task": task_name(sub.name),
        "test_split": "test",
        "output_type": "generate_until",
        "num_fewshot": len(shots),
        "doc_to_text": "prompt",
        "doc_to_target": "target",
        "target_delimiter": "",
        "fewshot_delimiter": "\n",
        **({"fewshot_config": few} if shots else {}),
        "generation_kwargs": {
            "until": [sub.stop] if sub.stop else [],
            "max_gen_toks": max_new_tokens,
            "do_sample": False,
        },
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
        "metadata": {"version": 1.0},
    }


def task_rows(examples: Sequence[Example], metric: str = "") -> list[dict]:
    """The documents of a task."""
    return documents(examples, metric)


def write_tasks(folder: Path, mixture: Mixture, max_new_tokens: int, part: str = "test") -> None:
    """Writes a part of the mixture, its test sets, as lm-eval task files: YAML, JSONL and the scorer, nothing else needed.

    What is measured by its loss is no generation task; the group's file names it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(scoring.__file__, folder / "scoring.py")
    generated = [sub for sub in mixture if sub.metric != LOSS and getattr(sub, part)]
    for sub in generated:
        data = folder / f"{task_name(sub.name)}.jsonl"
        data.write_text(
            "".join(json.dumps(row) + "\n" for row in task_rows(getattr(sub, part), sub.metric)), encoding="utf-8"
        )
        config = task_config(sub, max_new_tokens)
        config |= {"dataset_kwargs": {"file": data.name}}
        text = yaml.safe_dump(config, sort_keys=False, allow_unicode=True)
        # the tag that makes lm-eval call a function cannot be written by a safe dump
        text += "custom_dataset: !function scoring.dataset\nprocess_results: !function scoring.process_results\n"
        (folder / f"{task_name(sub.name)}.yaml").write_text(text, encoding="utf-8")
    group = {
        "group": GROUP,
        "task": [task_name(sub.name) for sub in generated],
        "aggregate_metric_list": [{"metric": "acc", "aggregation": "mean", "weight_by_size": True}],
    }
    text = yaml.safe_dump(group, sort_keys=False) if generated else ""
    if others := [sub.name for sub in mixture if sub.metric == LOSS]:
        text = f"# no task, since their metric is held-out loss: {json.dumps(others)}\n" + text
    (folder / f"{GROUP}.yaml").write_text(text, encoding="utf-8")


def build_task(sub: SubDataset, examples: Sequence[Example], max_new_tokens: int):
    """An lm-eval task over examples of a sub-dataset, its requests built."""
    from datasets import Dataset
    from lm_eval.api.task import ConfigurableTask

    rows = task_rows(examples, sub.metric)
    config = task_config(sub, max_new_tokens)
    config |= {"custom_dataset": lambda **_: {"test": Dataset.from_list(rows)}}
    config |= {"process_results": scoring.process_results}
    with _quiet():
        task = ConfigurableTask(config=config)
        task.build_all_requests()
    return task


class Evaluator:
    """The evaluation of a run: built once, called at every quarter epoch.

    should_stop: an attribute, asked between forward passes; where it is true `evaluate` raises Stopped.
    """

    def __init__(self, model, tokenizer, mixture: Mixture, part: str, max_new_tokens: int, batch_size: int):
        self.names, generated = mixture.names, [sub for sub in mixture if sub.metric != LOSS]
        self.tasks = {sub.name: build_task(sub, getattr(sub, part), max_new_tokens) for sub in generated}
        # held-out losses: the examples in their training form, without shots
        self.held_out = {sub.name: tokenize(tokenizer, getattr(sub, part)) for sub in mixture if sub.metric == LOSS}
        # a run's answers are greedy decoding with named stops, whatever the checkpoint's own configuration asks for
        model.generation_config = greedy(model, tokenizer, sorted({sub.stop for sub in generated if sub.stop}))
        self.lm = PrefixCachedLM(model, tokenizer, batch_size, stop_when=decided)
        self.should_stop, self._prepared, self._token_losses = None, None, None
        prefixes = {sub.name: self.tasks[sub.name].instances[0] for sub in generated}
        self._question_tokens = {}
        for sub in generated:
            shots = prefixes[sub.name].args[0][: -len(training_text(getattr(sub, part)[0])[0])]
            shared = len(self.lm.tok_encode(shots)) if shots else 0
            lengths = [len(self.lm.tok_encode(i.args[0])) - shared for i in self.tasks[sub.name].instances]
            self._question_tokens[sub.name] = sum(lengths)

    @property
    def path(self) -> str:
        """How answers are decoded: 'packed', or 'HFLM: ' and why."""
        return self.lm.path

    def evaluate(self) -> dict[str, Scores]:
        """Scores of every sub-dataset for the weights that the model has now; every process answers its share."""
        self.lm.should_stop = self.should_stop
        if self._prepared is None:  # here, not before: only now is the model where it stays
            instances = [i for task in self.tasks.values() for i in task.instances]
            self._prepared = self.lm.prepare(distributed.mine(instances))
        self.lm.generated_tokens.clear()
        with distributed.agreed():
            texts = self.lm.answer(self._prepared)
        shares = distributed.gather((texts, dict(self.lm.generated_tokens)))
        texts = iter(distributed.woven([texts for texts, _ in shares]))
        results = {}
        for name, task in self.tasks.items():
            for instance in task.instances:
                instance.resps = [next(texts)]
            task.apply_filters()
            answers = [instance.filtered_resps["none"] for instance in task.instances]
            correct = [
                task.process_results(i.doc, [text])["acc"] == 1.0
                for i, text in zip(task.instances, answers, strict=True)
            ]
            tokens = self._question_tokens[name] + sum(counts.get(task_name(name), 0) for _, counts in shares)
            results[name] = Scores(sum(correct) / len(correct), len(correct), tokens, answers, correct)
        results |= self._losses()
        return {name: results[name] for name in self.names}

    def _losses(self) -> dict[str, Scores]:
        """Scores of the sub-datasets whose metric is the held-out loss."""
        results, model = {}, self.lm.model
        if self.held_out and self._token_losses is None:  # its checks are forward passes
            self._token_losses = TokenLosses(model, 1, _LOSS_TOKENS)
        for name, rows in self.held_out.items():
            with distributed.agreed():
                if self.should_stop and self.should_stop():
                    raise Stopped("the evaluation was asked to stop between two sub-datasets")
            with evaluating(model):
                found = self._token_losses.of_examples(rows)
            sizes, each = [row.targets for row in rows], [probability([loss], [1]) for loss in found]
            tokens = sum(len(row.ids) for row in rows)
            results[name] = Scores(probability(found, sizes), len(rows), tokens, [""] * len(rows), each)
        return results


@contextlib.contextmanager
def _quiet():
    """lm-eval draws a bar and logs a line a task while it builds; a run says what it does itself."""
    logger = logging.getLogger("lm_eval")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)
