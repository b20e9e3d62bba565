"""Whether a model can read what its judges ask. lm-eval cuts the beginnings of longer prompts off, and an evaluation says
of how many; a task whose every prompt is cut, shots and all, asks something else."""

from msft.data.judges import Judge
from msft.data.mixture import Mixture
from msft.errors import DataError, together


def check_judges(mixture: Mixture, tokenizer, architecture) -> None:
    """Raises DataError with all that the judges would ask in vain of a model of this transformers configuration."""
    judges = [(sub.name, sub.judge) for sub in mixture if sub.judge] + [("judges", judge) for judge in mixture.judges]
    if not judges:
        return
    from lm_eval.models.utils import resolve_max_length

    length = resolve_max_length(architecture, tokenizer)
    problems = [f"{place}: {problem}" for place, judge in judges for problem in _problems(judge, tokenizer, length)]
    if problems:
        raise DataError(together(f"the model, of {length} positions, cannot answer what it would be asked:", problems))


def _problems(judge: Judge, tokenizer, length: int) -> list[str]:
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
