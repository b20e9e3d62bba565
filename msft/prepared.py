"""What a run needs but its weights, loaded and checked: data, tokenizer, and the name of its directory.

torch and lm-eval take seconds to load and come with what trains: a finished run is found without them.
"""

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path

from msft import adapter, distributed, methods, names
from msft.config import RunConfig
from msft.data.given_back import check_room
from msft.data.judges import check_judges
from msft.errors import Checks
from msft.paths import LONGEST


@dataclasses.dataclass
class Prepared:
    """A config with its data and tokenizer, checked; nothing is written yet."""

    config: RunConfig
    mixture: object
    tokenizer: object
    source: str
    contents: tuple[str, ...]

    @property
    def name(self) -> str:
        """Name of the run's directory; it carries the hash of all that determines the result."""
        config, contents = self.config, self.contents
        if config.methods_dir:  # a method of the user's own is part of what determines the result
            source = Path(methods.load(config.method, config.methods_dir).__file__)
            contents = (*contents, source.read_text(encoding="utf-8"))
        parts = [config.method, Path(config.model).name, Path(config.mixture).stem, f"s{config.seed}"]
        parts.append(config.fingerprint(*contents)[:10])
        if len("-".join(parts).encode()) > LONGEST:  # the hash tells apart what is cut
            parts = [part.encode()[:64].decode(errors="ignore") for part in parts]
        return "-".join(parts)

    def load_model(self):
        """The base model on its device, with a fresh adapter where the run has one."""
        config = self.config
        model = names.load_model(self.source, config.weights, config.model_revision, config.trust_remote_code)
        return adapter.added(model, config).to(distributed.device(config.device))

    def tokens(self) -> tuple[dict, object]:
        """({sub-dataset: tokenised train examples}, mixture without the examples that are too long).

        Made once a process for all runs that share them.
        Raises ModelError and DataError with all that does not fit: examples, prompts with their answers and what the judges
        ask into the model, right answers into max_new_tokens.
        """
        return of_base(self, "tokens", self._fit)

    def _fit(self) -> tuple[dict, object]:
        from msft.loss.tokens import check_context, fit_mixture

        config, check, tokenizer = self.config, Checks(), self.tokenizer
        architecture = names.load_architecture(self.source, config)
        check(check_judges, self.mixture, tokenizer, architecture)
        fitted = check(fit_mixture, tokenizer, self.mixture, config.max_tokens, config.max_prompt_tokens)
        if fitted:
            examples, mixture, prompts = fitted
            check(check_room, mixture, tokenizer, config.max_new_tokens)
            check(check_context, architecture, examples, prompts, config.max_new_tokens)
        check.done()
        return examples, mixture

    def evaluator(self, model, mixture, part: str):
        """What measures a part of a mixture; its `evaluate` belongs within `served` too."""
        from msft.evaluation import Evaluator
        from msft.packing.products import served

        config, encoded = self.config, of_base(self, "encoded", dict)
        limits = config.max_new_tokens, config.eval_batch_size
        with served(model, config):  # whether answers can be packed is shown in the precision that answers
            return Evaluator(model, self.tokenizer, mixture, part, *limits, encoded)


def shared(config: RunConfig) -> RunConfig:
    """The same for all runs of one base model, data and settings: without the four that none of these depends on."""
    return dataclasses.replace(config, method="sft", params={}, seed=0, methods_dir=None)


@functools.lru_cache(maxsize=8)
def _of_base(config: RunConfig, contents: tuple[str, ...]) -> dict:
    return {}


def of_base(prepared: Prepared, name: str, make: Callable):
    """What all runs of one base model, data and settings share, made once a process: the newest few bases are kept."""
    known = _of_base(shared(prepared.config), prepared.contents)
    if name not in known:
        known[name] = make()
    return known[name]


def name_of(config: RunConfig, known: dict) -> str:
    """The name of a run's directory; known: what `prepare` gave for other runs, which may share it. Raises as `prepare`."""
    key = shared(config)
    known[key] = known.get(key) or prepare(key)
    return dataclasses.replace(known[key], config=names.filled(config)).name


def prepare(config: RunConfig) -> Prepared:
    """Loads and checks what a run needs but its weights. Raises ConfigError, DataError or ModelError, all problems at once."""
    as_asked, config, check = config, names.filled(config), Checks()
    if config.device or distributed.size() > 1:
        check(distributed.device, config.device)
    check(adapter.check, config)
    source, tokenizer = check(names.model_source, config.model), None
    if source:
        check(names.check_revision, config, source)
        tokenizer = check(names.load_tokenizer, source, config.model_revision, config.trust_remote_code)
        if config.adapter:
            check(lambda: adapter.trained_parameters(config, names.load_architecture(source, config)))
    # without a tokenizer nothing will be trained: the paper's data are not fetched for it
    can_load = tokenizer or config.mixture not in names.paper_mixtures.NAMES
    if mixture := check(names.mixture_of, as_asked, tokenizer) if can_load else None:
        check(mixture.check_selection, config.select_on, config.select_metric)
    check.done()
    contents = [mixture.fingerprint(), names.model_identity(source, config.model_revision)]
    return Prepared(config, mixture, tokenizer, source, tuple(contents))
