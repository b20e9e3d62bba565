"""Five-shot evaluation through lm-eval, in process, on the live model (paper section 4.1), and by judges (data/judges.py).

Tasks (data/tasks.py) and requests are built once a run; only what depends on the weights is done at each evaluation.
"""

import copy
import math
import operator
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice

from msft import distributed
from msft.data.example import shots_text
from msft.data.judges import Judge, item_results
from msft.data.metrics import LOSS, Scores, token_mean
from msft.data.mixture import Mixture
from msft.data.scoring import decided, is_right
from msft.data.tasks import build_task, task_name
from msft.errors import ModelError, MsftError, RunError, Stopped
from msft.generation import PrefixCachedLM
from msft.generation.options import greedy
from msft.loss.losses import TokenLosses
from msft.loss.tokens import Tokens, tokenize
from msft.packing.attention import evaluating

_LOSS_TOKENS = 16384  # padded tokens a forward pass of held-out losses; an item's own loss does not depend on it


class Evaluator:
    """The evaluation of a run: built once, called at every quarter epoch.

    part: of the mixture, one of mixture.MEASURED; a sub-dataset without items in it is left out. The judges are asked for
    the part test.
    encoded: token ids of texts, filled here: what evaluators of one tokenizer share, so that each encodes only what is new.
    should_stop: an attribute, asked between forward passes; where it is true `evaluate` raises Stopped.
    """

    def __init__(
        self, model, tokenizer, mixture: Mixture, part: str, max_new_tokens: int, batch_size: int, encoded=None
    ):
        examples = {sub.name: getattr(sub, part) for sub in mixture}
        measured = [sub for sub in mixture if examples[sub.name]]
        generated = [sub for sub in measured if sub.metric != LOSS]
        self.judges = {sub.name: sub.judge for sub in mixture if sub.judge and part == "test"}
        self.names = [name for name, items in examples.items() if items or name in self.judges]
        self.should_stop = None
        self.tasks = {sub.name: build_task(sub, examples[sub.name], max_new_tokens) for sub in generated}
        # held-out losses: the examples in their training form, without shots
        self.held_out = {sub.name: tokenize(tokenizer, examples[sub.name]) for sub in measured if sub.metric == LOSS}
        # a run's answers are greedy decoding with named stops, whatever the checkpoint's own configuration asks for
        model.generation_config = greedy(model, tokenizer, sorted({sub.stop for sub in mixture if sub.stop}))
        self.lm = PrefixCachedLM(model, tokenizer, batch_size, stop_when=decided, encoded=encoded)
        self._court = Court(self.lm, self.judges)
        self._prepared = self._token_losses = None
        self._requests = [request for task in self.tasks.values() for request in task.instances]
        self._gold = [Tokens((*prompt, *gold), len(prompt)) for prompt, gold in map(self.lm.gold, self._requests)]
        self._check_ends()
        self._question_tokens = {}  # tokens of the prompts, the shots that they share not counted
        for sub in generated:
            prompts = [request.args[0] for request in self.tasks[sub.name].instances]
            shared = len(self.lm.tok_encode(shots_text(sub.shots))) if sub.shots else 0
            self._question_tokens[sub.name] = sum(len(self.lm.tok_encode(prompt)) - shared for prompt in prompts)

    @property
    def path(self) -> str:
        """How answers are decoded: 'packed', or 'HFLM: ' and why."""
        return self.lm.path

    def evaluate(self) -> dict[str, Scores]:
        """Scores of every sub-dataset for the weights that the model has now; every process answers its share."""
        scores = self._answers() | self._losses()
        self._court.should_stop = self.should_stop
        for name, score in (self._court.evaluate() if self.judges else {}).items():
            scores[name] = replace(score, loss=scores[name].loss) if name in scores else score
        return {name: scores[name] for name in self.names}

    def _check_ends(self) -> None:
        """Raises ModelError where an end that the checkpoint's configuration names would cut a right answer."""
        ends, decode = set(self.lm.model.generation_config.eos_token_id), self.lm.tokenizer.decode
        for request, row in zip(self._requests, self._gold, strict=True):
            ids = row.ids[row.start :]
            cut = next((i for i, token in enumerate(ids[:-1], 1) if token in ends), 0)
            if cut and not is_right(decode(ids[:cut], skip_special_tokens=True), request.doc):
                what = f"token {ids[cut - 1]} ({decode(ids[cut - 1])!r}) of the model's eos_token_id is in the target"
                mend = "in generation_config.json and config.json name only tokens that no answer holds"
                raise ModelError(f"{what} {request.doc['target'][:60]!r}, which would end there and be wrong: {mend}")

    def _answers(self) -> dict[str, Scores]:
        """Scores of the sub-datasets whose answers are generated."""
        self.lm.should_stop = self.should_stop
        if self._prepared is None:  # here, not before: only now is the model where it stays
            self._prepared = self.lm.prepare(distributed.mine(self._requests), with_losses=True)
        self.lm.generated_tokens.clear()
        answers = _shared(lambda _: self.lm.answer(self._prepared), self._requests)
        counts = sum(distributed.gather(self.lm.generated_tokens), Counter())
        answered = iter(zip(answers, self._gold, strict=True))
        scores = {}
        for name, task in self.tasks.items():
            some, rows = zip(*islice(answered, len(task.instances)), strict=True)
            for request, answer in zip(task.instances, some, strict=True):
                request.resps = [answer.text]
            losses = [answer.loss for answer in some]
            losses = self._forward_losses(rows) if None in losses else losses  # HFLM gives texts only
            loss = token_mean(losses, [row.targets for row in rows])
            task.apply_filters()
            answers = [(request.doc, request.filtered_resps["none"]) for request in task.instances]
            correct = [task.process_results(doc, [text])["acc"] == 1.0 for doc, text in answers]
            tokens = self._question_tokens[name] + counts[task_name(name)]
            texts, accuracy = [text for _, text in answers], sum(correct) / len(correct)
            scores[name] = Scores(accuracy, len(correct), tokens, texts, correct, loss)
        return scores

    def _losses(self) -> dict[str, Scores]:
        """Scores of the sub-datasets whose metric is the held-out loss."""
        scores = {}
        for name, rows in self.held_out.items():
            losses = self._forward_losses(rows)
            loss = token_mean(losses, [row.targets for row in rows])
            tokens, each = sum(len(row.ids) for row in rows), [math.exp(-loss) for loss in losses]
            scores[name] = Scores(math.exp(-loss), len(rows), tokens, [""] * len(rows), each, loss)
        return scores

    def _forward_losses(self, rows: Sequence[Tokens]) -> list[float]:
        """Mean target-token loss of each row by forward passes alone."""
        if self._token_losses is None:  # its checks are forward passes
            self._token_losses = TokenLosses(self.lm.model, 1, _LOSS_TOKENS)
        with distributed.agreed():
            if self.should_stop and self.should_stop():
                raise Stopped("the evaluation was asked to stop between two sub-datasets")
        with evaluating(self.lm.model):
            return self._token_losses.of_examples(rows)


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
            for request, answer in zip(asked, _shared(partial(self._answers, kind), asked), strict=True):
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
                results = list(item_results(task, judge))
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


def _shared(answer: Callable, requests: Sequence) -> list:
    """The answers to requests, in their order; `answer` gives those of a process to its share."""
    with distributed.agreed():
        answers = answer(distributed.mine(requests))
    return distributed.woven(distributed.gather(answers))
