"""lm-eval tasks as judges: of a sub-dataset in place of its test items, or of the whole model, only watched.

sub_datasets: [{name: physics, train: physics.jsonl, metric: lm_eval:arc_easy}]   # its first metric, or as Settings says
judges: [hellaswag, {lm_eval: my_task, include_path: tasks}]                      # watched: nothing is decided on them

lm-eval reads and scores the items; our own LM answers them with the weights of the moment. The prompts are the task's own,
without a chat template. Task files of one's own may bring Python code along, which is run, and name data files relative to
the folder that the command is started in, as with the stock command.
"""

import contextlib
import copy
import functools
import hashlib
import json
import math
import operator
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from msft import distributed
from msft.data.metrics import Scores
from msft.data.tasks import quiet
from msft.errors import DataError, ModelError, MsftError, RunError, nearest, unknown
from msft.paths import expanded
from msft.settings import check_values, setting

PREFIX = "lm_eval:"
_SHOT_SEED = 1234  # lm-eval's own default
_OF_THIS_MACHINE = ("dataset_path", "dataset_kwargs", "metadata")  # of a task's settings: the items themselves count


@dataclass(frozen=True)
class Settings:
    """What a mixture's file says of a judge."""

    lm_eval: str = setting("", "a task, group or tag of lm-eval")
    metric: str | None = setting(None, "one of its metrics, with a filter behind a comma; none takes the first")
    num_fewshot: int | None = setting(None, "shots before an item; none takes the task's own", low=0, high=1000)
    limit: int | None = setting(None, "items of each task at most", low=1, high=10**7)
    include_path: str | None = setting(None, "folder of task files of one's own")


@dataclass(frozen=True, eq=False)
class Judge:
    """An lm-eval task, or the tasks of a group or tag, its requests built.

    label: its name and metric as they are shown.  metric, filter: which value of an item counts.
    higher_is_better: as the task says.  on_own_scale: whether its value is no mean of items of which higher is better, such
    as a perplexity: no mean with accuracies makes sense.  by_size: whether a task of many items has more weight in a group's
    value, as it has unless the group says otherwise.
    """

    label: str
    metric: str
    filter: str
    higher_is_better: bool
    on_own_scale: bool
    tasks: list
    by_size: bool = True

    @property
    def requests(self) -> list:
        """What is asked of the model, in the order of the items."""
        return [request for task in self.tasks for request in task.instances]

    @property
    def texts(self) -> list[str]:
        """All texts of the requests: prompts, shots included, and the continuations that are rated."""
        return [text for request in self.requests for text in request.args if isinstance(text, str)]

    @property
    def n(self) -> int:
        """Number of items."""
        return sum(len({request.doc_id for request in task.instances}) for task in self.tasks)

    def facts(self) -> dict:
        """What run.json says of it."""
        shots = {task.task_name: task.config.num_fewshot for task in self.tasks}
        values = {"label": self.label, "metric": self.metric, "filter": self.filter, "n": self.n, "num_fewshot": shots}
        return values | {"higher_is_better": self.higher_is_better, "on_own_scale": self.on_own_scale}

    def fingerprint(self) -> str:
        """SHA-256 of all that its values depend on but the weights: requests, items, scoring."""
        configs = [{k: v for k, v in t.dump_config().items() if k not in _OF_THIS_MACHINE} for t in self.tasks]
        asked = [[request.request_type, request.args, request.doc] for request in self.requests]
        alike = [] if self.by_size else ["every task has the same weight"]
        text = json.dumps([self.label, self.filter, configs, asked, *alike], sort_keys=True, default=str)
        # a function without a source is shown with its place in memory
        return hashlib.sha256(re.sub(" at 0x[0-9a-f]+", "", text).encode()).hexdigest()


def is_judged(metric: object) -> bool:
    """Whether what an entry of a mixture says under `metric` names an lm-eval task."""
    return isinstance(metric, dict) or (isinstance(metric, str) and metric.startswith(PREFIX))


def load(said: str | dict, folder: Path) -> Judge:
    """The judge that a mixture's file names. folder: where that file lies.

    Raises DataError with all that is wrong with it: unknown keys, task, metric or filter, data that cannot be read.
    """
    values = {"lm_eval": said.removeprefix(PREFIX)} if isinstance(said, str) else said
    clean, problems = check_values(Settings, values, "key of a judge")
    if not problems and not clean.get("lm_eval"):
        problems.append("a judge needs the name of a task: `lm_eval: arc_easy`")
    if problems:
        raise DataError("; ".join(problems))
    wanted = Settings(**clean)
    with quiet():
        place = folder / expanded(wanted.include_path) if wanted.include_path else None
        tasks, group = _tasks(wanted, place)
        problems = _twice(place, dict.fromkeys([wanted.lm_eval, *(task.task_name for task in tasks)]))
        problems += [problem for task in tasks for problem in _problems(task, wanted)]
        means = {one.metric: one for one in getattr(group, "aggregate_metric_list", None) or ()}
        metric, chosen, wrong = _metric(tasks, wanted, means)
        if problems or wrong:
            raise DataError("; ".join(dict.fromkeys([*problems, *wrong])))
        for task in tasks:
            _build(task, wanted)
    from lm_eval.api.metrics import mean

    label = f"{PREFIX}{wanted.lm_eval} {metric}" + (f",{chosen}" if chosen != "none" else "")
    is_better = {task.higher_is_better().get(metric, True) for task in tasks}
    if not is_better <= {True, False}:  # lm-eval draws no arrow beside its value; 'false' would be true
        way = "write `higher_is_better: true` or false beside it in metric_list"
        raise DataError(f"the task file of {wanted.lm_eval} does not say whether a higher {metric} is better; {way}")
    if len(is_better) > 1:
        raise DataError(f"a higher {metric} is better in some tasks of {wanted.lm_eval}, not in others; name one task")
    is_share = is_better == {True} and all(task.aggregation().get(metric, mean) is mean for task in tasks)
    by_size = metric not in means or means[metric].weight_by_size
    judge = Judge(label, metric, chosen, is_better.pop(), not is_share, tasks, by_size)
    for task in tasks:
        _rehearse(task, judge)
    return judge


@functools.cache
def _stock():
    """lm-eval's own tasks by name; reading their 14,000 files takes seconds."""
    from lm_eval.tasks import TaskManager

    return TaskManager()


def _tasks(wanted: Settings, folder: Path | None) -> tuple[list, object]:
    """(the tasks of a name, its group where it is one): of a folder of one's own, else of lm-eval."""
    from lm_eval.tasks import TaskManager

    if folder is not None and not folder.is_dir():
        raise DataError(f"include_path: {str(folder)!r} is no folder; give the folder of your task files")
    name, known = wanted.lm_eval, []
    try:
        of_user = [lambda: TaskManager(include_path=folder, include_defaults=False)] if folder else []
        for manager in (*of_user, _stock):
            tasks = manager()
            if name in tasks.all_tasks:
                loaded = tasks.load([name])
                return list(loaded["tasks"].values()), loaded["groups"].get(name)
            known += tasks.all_tasks
    except Exception as error:  # of yaml, datasets, the hub, and of the user's own code
        why = f"{type(error).__name__}: {str(error)[:300]}"
        is_of_data = isinstance(error, OSError) or type(error).__module__.startswith(("datasets", "huggingface_hub"))
        way = "Its data must be on this machine, or the hub must be reached" if is_of_data else "See its task file"
        raise DataError(f"the lm-eval task {name!r} cannot be built: {why}. {way}") from error
    way = "`lm-eval ls tasks` lists all; a task file of your own needs `include_path`, its folder"
    raise DataError(f"lm-eval has no task {name!r}.{nearest(name, known)} {way}{_broken(folder)}")


def _broken(folder: Path | None) -> str:
    """Names the task files of a folder that are no YAML, which lm-eval passes over."""
    wrong = []
    for file in sorted(folder.rglob("*.yaml")) if folder else ():
        try:
            yaml.compose(file.read_text(encoding="utf-8"))
        except (yaml.YAMLError, OSError, UnicodeError) as error:
            wrong.append(f"{file} cannot be read ({' '.join(str(error).split())})")
    return "".join(f". {problem}" for problem in wrong)


def _twice(folder: Path | None, names: Iterable[str]) -> list[str]:
    """Problems of names that two files of a folder give to a task or group: lm-eval takes one of these without a word."""
    files: dict[str, list[str]] = {}
    for file in sorted(folder.rglob("*.yaml")) if folder else ():
        with contextlib.suppress(yaml.YAMLError, OSError, UnicodeError, TypeError):
            is_copy = ".ipynb_checkpoints" in file.parts  # which lm-eval passes over
            node = None if is_copy else yaml.compose(file.read_text(encoding="utf-8"))
            said = {k.value: v.value for k, v in node.value} if isinstance(node, yaml.MappingNode) else {}
            name = said.get("group", said.get("task"))
            files.setdefault(name if isinstance(name, str) else "", []).append(str(file))
    return [
        f"{' and '.join(files[name])} both define {name!r}; give each a name of its own"
        for name in names
        if len(files.get(name, ())) > 1
    ]


def _problems(task, wanted: Settings) -> list[str]:
    """Why a task can be no judge."""
    from msft.generation.options import check_request

    name, config, problems = task.task_name, task.config, []
    options = (config.generation_kwargs or {}) if config.output_type == "generate_until" else {}
    if config.unsafe_code:
        problems.append(f"{name} runs code that the model writes, which is not done here")
    if config.doc_to_image or config.doc_to_audio:
        problems.append(f"{name} shows images or sounds; take a task of texts")
    if config.repeats > 1 or options.get("do_sample") or options.get("temperature"):
        problems.append(f"{name} samples its answers, which differ from time to time: take one that decodes greedily")
    if wanted.num_fewshot and config.num_fewshot == 0:
        problems.append(f"{name} is made for no shots (num_fewshot: 0 in its file); take num_fewshot away")
    # lm-eval goes on with a metric that it does not find, and calls it at the first answer
    functions = vars(task).get("_metric_fn_list", {}) if options and not config.process_results else {}
    if lost := [metric for metric, function in functions.items() if function is None]:
        mend = "nor has Hugging Face's evaluate here; name another"
        problems.append(f"{name}: lm-eval has no metric {lost[0]!r}, {mend}")
    try:
        check_request(options)
    except ModelError as error:
        problems.append(f"{name}: {error}")
    return problems


def _metric(tasks: list, wanted: Settings, means: Mapping) -> tuple[str, str, list[str]]:
    """(metric, filter, problems) of what all the tasks have. means: the metrics of which their group has a mean, which
    come first."""
    if not tasks:
        return "", "", [f"{wanted.lm_eval} is a group without tasks"]
    shared = [m for m in tasks[0].aggregation() if all(m in task.aggregation() for task in tasks)]
    metrics = sorted((m for m in shared if m != "bypass"), key=lambda m: m not in means)
    filters = [f.name for f in tasks[0]._filters if all(f.name in [g.name for g in task._filters] for task in tasks)]
    metric, _, chosen = (wanted.metric or "").partition(",")
    metric, chosen, problems = metric or next(iter(metrics), ""), chosen.strip() or next(iter(filters), ""), []
    if not metrics:
        said = "have no metric but bypass, which scores nothing; take other tasks"
        said = said if shared else "have no metric in common; name one of them"
        problems.append(f"the tasks of {wanted.lm_eval} {said}")
    elif metric not in metrics:
        problems.append(unknown(f"metric of {wanted.lm_eval}", metric, metrics))
    if chosen not in filters:
        problems.append(unknown(f"filter of {wanted.lm_eval}", chosen, filters))
    return metric, chosen, problems


def _build(task, wanted: Settings) -> None:
    """The requests of a task, as lm-eval makes them."""
    shots = task.config.num_fewshot if wanted.num_fewshot is None else wanted.num_fewshot
    task.set_config("num_fewshot", shots or 0)
    task.set_fewshot_seed(_SHOT_SEED)
    try:
        task.build_all_requests(limit=wanted.limit)
    except Exception as error:  # of templates, of too few shots, of the user's own code
        why = f"{type(error).__name__}: {str(error)[:300]}"
        raise DataError(f"the requests of the lm-eval task {task.task_name!r} cannot be built: {why}") from error


def _rehearse(task, judge: Judge) -> None:
    """Raises DataError where a task's own scoring does not give the metric: items are scored with a stand-in."""
    stand_ins = {"generate_until": str(task.doc_to_target(task.instances[0].doc)), "loglikelihood_rolling": -1.0}
    for request in task.instances:
        request.resps = [stand_ins.get(request.request_type, (-1.0, False))]
    names: dict = {}
    try:
        task.apply_filters()
        for _, values in _item_results(task, judge):
            if judge.metric in (names := names | values):
                return
    except Exception:  # what a user's scoring raises of this answer says nothing of a model's
        return
    raise DataError(unknown(f"metric in the results of {task.task_name}", judge.metric, list(names)))


class Court:
    """Judges before a live PrefixCachedLM; what does not depend on the weights is done once."""

    def __init__(self, lm, judges: Mapping[str, Judge]):
        self.judges, self.lm = judges, copy.copy(lm)
        self.lm.stop_when, self.lm.generated_tokens = None, Counter()  # any task may read a text to its end
        self.should_stop = self._prepared = None
        self._prompt_tokens = {n: sum(len(lm.tok_encode(text)) for text in j.texts) for n, j in judges.items()}
        for name, judge in judges.items():  # two may ask the same task: each has its own count of tokens
            for request in judge.requests:
                request.task_name = name

    def evaluate(self) -> dict[str, Scores]:
        """The verdicts on the weights that the model has now; every process answers its share."""
        self.lm.should_stop = self.should_stop
        self.lm.generated_tokens.clear()
        requests: dict[str, list] = {}
        for request in (request for judge in self.judges.values() for request in judge.requests):
            requests.setdefault(request.request_type, []).append(request)
        for kind, asked in requests.items():
            with distributed.agreed():
                answers = self._answers(kind, distributed.mine(asked))
            for request, answer in zip(asked, distributed.woven(distributed.gather(answers)), strict=True):
                request.resps = [answer]
        counts = sum(distributed.gather(self.lm.generated_tokens), Counter())
        return {name: self._verdict(name, judge, counts) for name, judge in self.judges.items()}

    def _answers(self, kind: str, requests: list) -> list:
        if kind != "generate_until":
            return getattr(self.lm, kind)(requests, disable_tqdm=True)
        if self._prepared is None:
            self._prepared = self.lm.prepare(requests)
        return [answer.text for answer in self.lm.answer(self._prepared)]

    def _verdict(self, name: str, judge: Judge, counts: Counter) -> Scores:
        means, weights, outputs, items = [], [], [], []
        for task in judge.tasks:
            try:
                task.apply_filters()
                results = list(_item_results(task, judge))
                values = [result[judge.metric] for _, result in results if judge.metric in result]
                sizes = Counter(metric for _, result in results for metric in result)
                mean = float(task.aggregation()[judge.metric](values)) if values else math.nan
            except OverflowError:  # of a perplexity
                mean = math.inf
            except Exception as error:  # of the task's own code
                what = f"the scoring of the lm-eval task {task.task_name!r} fails: {type(error).__name__}: {error}"
                raise error if isinstance(error, MsftError) else RunError(what) from error
            if not math.isfinite(mean):
                raise RunError(f"{judge.label} is {mean} for this model, which cannot be compared; take another metric")
            means.append(mean)
            weights.append(max(sizes.values()) if judge.by_size else 1)  # some items may lack a metric
            outputs += [text for text, _ in results]
            items += values
        count, tokens = len(items), self._prompt_tokens[name] + counts[name]
        if judge.on_own_scale or count < len(outputs):
            outputs = items = []
        facts = {"higher_is_better": judge.higher_is_better, "on_own_scale": judge.on_own_scale}
        value = sum(map(operator.mul, means, weights)) / sum(weights)
        return Scores(value, count, tokens, outputs, [float(value) for value in items], **facts)


def _item_results(task, judge: Judge) -> Iterable[tuple[str, dict]]:
    """(generated text or '', values by metric) of every item of a task, as lm-eval's own loop has it."""
    by_item: dict[int, list] = {}
    for request in task.instances:
        by_item.setdefault(request.doc_id, []).append(request)
    for requests in by_item.values():
        answers = [request.filtered_resps[judge.filter] for request in sorted(requests, key=lambda r: r.idx)]
        # a copy: what a task's own code changes of an item is changed for this scoring alone, as with lm-eval
        values = task.process_results(copy.deepcopy(requests[0].doc), answers)
        text = requests[0].resps[0]
        yield text if isinstance(text, str) else "", values
