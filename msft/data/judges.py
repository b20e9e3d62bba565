"""lm-eval tasks as judges: of a sub-dataset in place of its test items, or of the whole model, only watched.

sub_datasets: [{name: physics, train: physics.jsonl, metric: lm_eval:arc_easy}]   # its first metric, or as Settings says
judges: [hellaswag, {lm_eval: my_task, include_path: tasks}]                      # watched: nothing is decided on them

lm-eval reads and scores the items; our own LM answers them with the weights of the moment. The prompts are the task's own,
without a chat template. Task files of one's own may bring Python code along, which is run, and name data files relative to
the folder that the command is started in, as with the stock command.
"""

import copy
import functools
import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from msft.data.mixture import Mixture
from msft.data.tasks import quiet
from msft.errors import DataError, ModelError, nearest, together, unknown
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
        files, names = _own_files(place)[0], dict.fromkeys([wanted.lm_eval, *(task.task_name for task in tasks)])
        twice = [(name, files[name]) for name in names if len(files.get(name, ())) > 1]
        problems = [f"{' and '.join(them)} both define {name!r}; give each a name of its own" for name, them in twice]
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
    with quiet():
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
    raise DataError(". ".join([f"lm-eval has no task {name!r}.{nearest(name, known)} {way}", *_own_files(folder)[1]]))


def _own_files(folder: Path | None) -> tuple[dict[str, list[str]], list[str]]:
    """({task or group: the files of a folder that define it}, those that are no YAML). lm-eval takes one of several, and
    passes over what it cannot read, without a word."""
    files, broken = {}, []
    for file in sorted(folder.rglob("*.yaml")) if folder else ():
        try:
            node = yaml.compose(file.read_text(encoding="utf-8"))
            said = {k.value: v.value for k, v in node.value} if isinstance(node, yaml.MappingNode) else {}
        except (yaml.YAMLError, OSError, UnicodeError, TypeError) as error:
            broken.append(f"{file} cannot be read ({' '.join(str(error).split())})")
            continue
        name = said.get("group", said.get("task"))
        if isinstance(name, str) and ".ipynb_checkpoints" not in file.parts:  # of those lm-eval takes none
            files.setdefault(name, []).append(str(file))
    return files, broken


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
    """Raises DataError where a task's own scoring does not give the metric, or no mean of it: items are scored with a
    stand-in."""
    stand_ins = {"generate_until": str(task.doc_to_target(task.instances[0].doc)), "loglikelihood_rolling": -1.0}
    for request in task.instances:
        request.resps = [stand_ins.get(request.request_type, (-1.0, False))]
    try:
        task.apply_filters()
        results = [values for _, values in item_results(task, judge)]
    except Exception:  # what a user's scoring raises of this answer says nothing of a model's
        return
    values = [result[judge.metric] for result in results if judge.metric in result]
    if not values:
        names = list(dict.fromkeys(name for result in results for name in result))
        raise DataError(unknown(f"metric in the results of {task.task_name}", judge.metric, names))
    try:
        float(task.aggregation()[judge.metric](values))
    except ArithmeticError:  # of these values, as of a perplexity or a share of nothing
        pass
    except Exception as error:
        what = f"the values of {judge.metric} of the lm-eval task {task.task_name!r} have no mean by its `aggregation`"
        raise DataError(f"{what} ({type(error).__name__}: {str(error)[:300]}); take another metric") from error


def item_results(task, judge: Judge) -> Iterable[tuple[str, dict]]:
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


def check_judges(mixture: Mixture, tokenizer, architecture) -> None:
    """Raises DataError with all that the judges would ask in vain of a model of this transformers configuration."""
    judges = [(sub.name, sub.judge) for sub in mixture if sub.judge] + [("judges", judge) for judge in mixture.judges]
    if not judges:
        return
    from lm_eval.models.utils import resolve_max_length

    length = resolve_max_length(architecture, tokenizer)
    problems = [f"{place}: {problem}" for place, judge in judges for problem in _unreadable(judge, tokenizer, length)]
    if problems:
        raise DataError(together(f"the model, of {length} positions, cannot answer what it would be asked:", problems))


def _unreadable(judge: Judge, tokenizer, length: int) -> list[str]:
    """Problems of a judge's requests. length: tokens that the model reads, those that it generates among them."""
    from lm_eval.models.utils import normalize_gen_kwargs

    problems, other_task = [], "a task file of your own"
    by_kind: dict[tuple, list] = {}  # a task may ask in several ways
    for task in judge.tasks:
        for request in task.instances:
            by_kind.setdefault((task, request.request_type), []).append(request.args)
    for (task, kind), asked in by_kind.items():
        shots = task.config.num_fewshot
        if kind == "loglikelihood_rolling":  # read in windows
            continue
        if kind == "generate_until":
            texts = [prompt for prompt, _ in asked]
            new = max(normalize_gen_kwargs(options)["max_gen_toks"] for _, options in asked)
            kept, mend = f" and max_gen_toks = {new}", f"{other_task} with a lower max_gen_toks"
            if new < 1:
                problems.append(f"{judge.label}: {task.task_name} has max_gen_toks = {new}; give at least 1")
            if not all(tokenizer(text)["input_ids"] for text in texts):
                problems.append(f"{judge.label}: {task.task_name} has an empty prompt; a model continues some text")
        else:  # the last token of a continuation is predicted, not read
            texts, new, kept = ["".join(pair) for pair in asked], -1, ""
            mend = f"{other_task} whose process_docs leaves long items out"
        shortest = float("inf")
        for text in sorted(texts, key=len):  # one that fits is enough, and the first one mostly does
            shortest = min(shortest, len(tokenizer(text)["input_ids"]))
            if shortest + new <= length:
                break
        else:
            fewer = f"fewer shots (num_fewshot is {shots}), " * bool(shots and new < length)
            what = f"{task.task_name} has prompts of at least {shortest} tokens{kept}"
            problems.append(f"{judge.label}: {what}; give {fewer}{mend}, or another task")
    return problems
