"""Five-shot evaluation through lm-eval, in process, on the live model (paper section 4.1).

Tasks (data/tasks.py) and requests are built once a run; only what depends on the weights is done at each evaluation.
"""

from dataclasses import dataclass

from msft import distributed
from msft.data.example import shots_text
from msft.data.metrics import LOSS, probability
from msft.data.mixture import Mixture, SubDataset
from msft.data.scoring import decided
from msft.data.tasks import build_task, task_name
from msft.errors import Stopped
from msft.generation import PrefixCachedLM
from msft.generation.options import greedy
from msft.loss.losses import TokenLosses
from msft.loss.tokens import tokenize
from msft.packing.attention import evaluating

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


class Evaluator:
    """The evaluation of a run: built once, called at every quarter epoch.

    part: of the mixture, one of mixture.MEASURED; a sub-dataset without items in it is left out.
    should_stop: an attribute, asked between forward passes; where it is true `evaluate` raises Stopped.
    """

    def __init__(self, model, tokenizer, mixture: Mixture, part: str, max_new_tokens: int, batch_size: int):
        examples = {sub.name: getattr(sub, part) for sub in mixture if getattr(sub, part)}
        measured = [sub for sub in mixture if sub.name in examples]
        generated = [sub for sub in measured if sub.metric != LOSS]
        self.names, self.should_stop = list(examples), None
        self.tasks = {sub.name: build_task(sub, examples[sub.name], max_new_tokens) for sub in generated}
        # held-out losses: the examples in their training form, without shots
        self.held_out = {sub.name: tokenize(tokenizer, examples[sub.name]) for sub in measured if sub.metric == LOSS}
        # a run's answers are greedy decoding with named stops, whatever the checkpoint's own configuration asks for
        model.generation_config = greedy(model, tokenizer, sorted({sub.stop for sub in mixture if sub.stop}))
        self.lm = PrefixCachedLM(model, tokenizer, batch_size, stop_when=decided)
        self._prepared = self._token_losses = None
        self._question_tokens = {sub.name: self._count_question_tokens(sub) for sub in generated}

    @property
    def path(self) -> str:
        """How answers are decoded: 'packed', or 'HFLM: ' and why."""
        return self.lm.path

    def evaluate(self) -> dict[str, Scores]:
        """Scores of every sub-dataset for the weights that the model has now; every process answers its share."""
        scores = self._answers() | self._losses()
        return {name: scores[name] for name in self.names}

    def _answers(self) -> dict[str, Scores]:
        """Scores of the sub-datasets whose answers are generated."""
        self.lm.should_stop = self.should_stop
        if self._prepared is None:  # here, not before: only now is the model where it stays
            requests = [request for task in self.tasks.values() for request in task.instances]
            self._prepared = self.lm.prepare(distributed.mine(requests))
        self.lm.generated_tokens.clear()
        with distributed.agreed():
            texts = self.lm.answer(self._prepared)
        shares = distributed.gather((texts, dict(self.lm.generated_tokens)))
        texts = iter(distributed.woven([texts for texts, _ in shares]))
        scores = {}
        for name, task in self.tasks.items():
            for request in task.instances:
                request.resps = [next(texts)]
            task.apply_filters()
            answers = [(request.doc, request.filtered_resps["none"]) for request in task.instances]
            correct = [task.process_results(doc, [text])["acc"] == 1.0 for doc, text in answers]
            tokens = self._question_tokens[name] + sum(counts.get(task_name(name), 0) for _, counts in shares)
            scores[name] = Scores(sum(correct) / len(correct), len(correct), tokens, [t for _, t in answers], correct)
        return scores

    def _losses(self) -> dict[str, Scores]:
        """Scores of the sub-datasets whose metric is the held-out loss."""
        scores, model = {}, self.lm.model
        if self.held_out and self._token_losses is None:  # its checks are forward passes
            self._token_losses = TokenLosses(model, 1, _LOSS_TOKENS)
        for name, rows in self.held_out.items():
            with distributed.agreed():
                if self.should_stop and self.should_stop():
                    raise Stopped("the evaluation was asked to stop between two sub-datasets")
            with evaluating(model):
                losses = self._token_losses.of_examples(rows)
            accuracy = probability(losses, [row.targets for row in rows])
            tokens, each = sum(len(row.ids) for row in rows), [probability([loss], [1]) for loss in losses]
            scores[name] = Scores(accuracy, len(rows), tokens, [""] * len(rows), each)
        return scores

    def _count_question_tokens(self, sub: SubDataset) -> int:
        """Tokens of the prompts of a sub-dataset, the shots that they share not counted."""
        prompts = [request.args[0] for request in self.tasks[sub.name].instances]
        shared = len(self.lm.tok_encode(shots_text(sub.shots))) if sub.shots else 0
        return sum(len(self.lm.tok_encode(prompt)) - shared for prompt in prompts)
