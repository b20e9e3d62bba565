"""PrefixCachedLM: greedy decoding and log-likelihoods with a shared prefix, as an LM of lm-eval.

    lm = PrefixCachedLM(model, tokenizer)
    lm_eval.simple_evaluate(model=lm, tasks=["gsm8k"])

The tokens that the items of a task have in common, such as five fixed shots, go through the model once; their
keys and values are read by all items. Where the gold answer of an item is known it is tried as a draft: one
forward pass checks it, the longest prefix that greedy decoding agrees with is taken, and decoding goes on from
the first token that differs. The result is exactly that of greedy decoding, token by token.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from lm_eval.api.model import TemplateLM
from lm_eval.models.utils import (
    handle_stop_sequences,
    has_bos_prefix,
    normalize_gen_kwargs,
    postprocess_generated_text,
)

from msft.errors import ModelError, Stopped
from msft.generation.decoding import Item, Plan, decode, make_plan
from msft.generation.likelihood import score
from msft.generation.stock import evaluating, quiet_stock_lm, stock_lm
from msft.packing.attention import can_pack, packed_attention
from msft.packing.forward import has_plain_head, shares_cache

_MOST_TEXTS = 100_000  # texts of token sequences that are remembered
_LONGEST_DRAFT = 12  # tokens; greedy decoding seldom agrees with more of a written-out rationale


@dataclass(frozen=True)
class _Rule:
    """Generation options of a request: stop sequences with and without EOS's text, tokens at most, tokens that end it."""

    until: list[str]
    stops: list[str]
    limit: int
    ends: set[int]


@dataclass(frozen=True)
class Requests:
    """Planned requests; plan: None where lm-eval's own LM answers them."""

    requests: Sequence
    rules: Sequence[_Rule]
    plan: Plan | None


class PrefixCachedLM(TemplateLM):
    """An lm-eval LM over a live Hugging Face causal model.

    model, tokenizer: as loaded by transformers; the model's training mode is put back after each call.
    batch_size: items a forward pass.
    stop_when: text -> bool, asked after each line break; decoding of an item stops where it is true. Leave it out
    to get the same texts as lm-eval's HFLM; msft's own tasks pass `prompts.decided`, which cannot change a score.
    draft_of: request -> text that is tried as a draft; the document's 'target' or 'answer' by default.
    should_stop: an attribute, None, a bool or a function without arguments, asked before every forward pass: where it
    is true the call raises Stopped.
    Raises ModelError for sampling: only greedy decoding is offered.
    """

    def __init__(
        self,
        model,
        tokenizer,
        batch_size: int = 32,
        *,
        stop_when: Callable[[str], bool] | None = None,
        draft_of: Callable[[object], str] | None = None,
        max_gen_toks: int = 256,
    ):
        super().__init__()
        self.model, self.tokenizer, self.batch_size = model, tokenizer, int(batch_size)
        self.stop_when, self.max_gen_toks = stop_when, max_gen_toks
        self.draft_of = draft_of or _gold_text
        self.should_stop: Callable[[], bool] | bool | None = None
        self.generated_tokens: dict[str, int] = {}
        self._ids: dict[str, list[int]] = {}
        self._bare_ids: dict[str, list[int]] = {}
        self._eos = tokenizer.eos_token_id
        self._plain = has_plain_head(model)
        self._texts: dict[tuple[int, ...], str] = {}
        self._breaks: dict[int, bool] = {}
        ends = model.generation_config.eos_token_id if model.can_generate() else None  # chat models have several
        self._ends = {self.eot_token_id, *(ends if isinstance(ends, list) else [ends])}
        self._fallback = None
        if not (shares_cache(model) and can_pack(model)):
            self._fallback = stock_lm(model, tokenizer, self.batch_size)

    # lm-eval's interface -------------------------------------------------------------------------------

    @property
    def eot_token_id(self) -> int:
        """Id of the token that ends a text."""
        return self._eos

    @property
    def prefix_token_id(self) -> int:
        """Id of the token that stands before an empty context."""
        return self.tokenizer.bos_token_id if self.tokenizer.bos_token_id is not None else self.eot_token_id

    @property
    def max_length(self) -> int:
        """Tokens that the model's positions reach."""
        return getattr(self.model.config.get_text_config(), "max_position_embeddings", 2048)

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.model.device

    @property
    def tokenizer_name(self) -> str:
        """Name of the tokenizer, for lm-eval's request cache."""
        return self.tokenizer.name_or_path.replace("/", "__")

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **kwargs) -> list[int]:
        """Token ids of a text, as HFLM encodes it; remembered, since a run asks for the same texts again."""
        if add_special_tokens is None and string in self._ids:
            return self._ids[string]
        if add_special_tokens is False and string in self._bare_ids:
            return self._bare_ids[string]
        options = {} if add_special_tokens is None else {"add_special_tokens": add_special_tokens}
        if add_special_tokens is None and has_bos_prefix(string, self.tokenizer.decode(self.prefix_token_id)):
            options["add_special_tokens"] = False
        ids = self.tokenizer.encode(string, **options)
        if not add_special_tokens:
            (self._ids if add_special_tokens is None else self._bare_ids)[string] = ids
        return ids

    def generate_until(self, requests, disable_tqdm: bool = False) -> list[str]:
        """The generated text of each request, in the requests' order. Raises Stopped where should_stop() is true."""
        return self.run(self.plan(requests))

    def plan(self, requests) -> "Requests":
        """Tokens, prefixes and batches of generate_until requests: what does not depend on the weights.

        An evaluation that comes again and again makes it once and gives it to `run`.
        """
        options = {}
        for request in requests:
            key = repr(request.args[1])
            if key not in options:
                options[key] = self._options(request.args[1])
        rules = [options[repr(request.args[1])] for request in requests]
        if self._fallback is not None:
            return Requests(requests, rules, None)
        items = [self._item(request, rule) for request, rule in zip(requests, rules, strict=True)]
        return Requests(requests, rules, make_plan(items, self.batch_size, self.model))

    def run(self, planned: "Requests") -> list[str]:
        """The generated texts of planned requests for the weights that the model has now."""
        if planned.plan is None:
            return self._generate_by_stock(planned.requests)
        with evaluating(self.model), packed_attention(self.model):
            outs = decode(self.model, planned.plan, self.batch_size, self._plain, self._pause)
        texts = []
        for request, rule, out in zip(planned.requests, planned.rules, outs, strict=True):
            texts.append(postprocess_generated_text(self._text(tuple(out)), rule.until, None))
            self.generated_tokens[request.task_name] = self.generated_tokens.get(request.task_name, 0) + len(out)
        return texts

    def loglikelihood_rolling(self, requests, disable_tqdm: bool = False) -> list[float]:
        """Log-likelihood of whole texts; nothing is shared here, so lm-eval's own LM computes it."""
        stock = self._fallback or quiet_stock_lm(self.model, self.tokenizer, self.batch_size)
        with evaluating(self.model):
            return stock.loglikelihood_rolling(requests, disable_tqdm=True)

    def _generate_by_stock(self, requests) -> list[str]:
        with evaluating(self.model):
            texts = self._fallback.generate_until(requests, disable_tqdm=True)
        for request, text in zip(requests, texts, strict=True):
            # HFLM gives texts only: their tokens and EOS stand for what was generated
            count = len(self.tok_encode(text, add_special_tokens=False)) + 1
            self.generated_tokens[request.task_name] = self.generated_tokens.get(request.task_name, 0) + count
        return texts

    def _loglikelihood_tokens(self, requests, disable_tqdm: bool = False, **kwargs):
        """(log-likelihood, is greedy) of each (texts, context ids, continuation ids)."""
        if self._fallback is not None:
            with evaluating(self.model):
                return self._fallback._loglikelihood_tokens(requests, disable_tqdm=True)
        most = self.max_length + 1
        pairs = [((a + b)[-most : -len(b)], b) for _, a, b in requests]
        with evaluating(self.model), packed_attention(self.model):
            return score(self.model, pairs, self.batch_size, self._plain, self._pause)

    # inside ---------------------------------------------------------------------------------------------

    def _pause(self) -> None:
        if self.should_stop is not None and (self.should_stop() if callable(self.should_stop) else self.should_stop):
            raise Stopped("the evaluation was asked to stop between two batches")

    def _options(self, given: dict) -> "_Rule":
        options = normalize_gen_kwargs(given, self.max_gen_toks)
        if options.get("do_sample") or options.get("temperature"):
            raise ModelError("PrefixCachedLM decodes greedily; take do_sample and temperature away")
        eos_text = self.tokenizer.decode([self.eot_token_id], skip_special_tokens=False)
        until, limit = handle_stop_sequences(options["until"], eos=eos_text), options["max_gen_toks"]
        if self._fallback is None and self.max_length <= limit:
            raise ModelError(f"max_gen_toks {limit} leaves no room for a prompt: the model has {self.max_length}")
        # a special token, such as the end of a chat's turn, is not in the texts that stops are looked for in
        bare = {stop: self.tok_encode(stop, add_special_tokens=False) for stop in until}
        ends = {ids[0] for ids in bare.values() if len(ids) == 1 and self._text(tuple(ids)) == ""}
        return _Rule(until, [stop for stop in until if stop != eos_text], limit, self._ends | ends)

    def _item(self, request, rule: "_Rule") -> Item:
        prompt = self.tok_encode(request.args[0])[-(self.max_length - rule.limit) :]
        text = self.draft_of(request)
        draft = [*self.tok_encode(text, add_special_tokens=False), self.eot_token_id] if text else []
        return Item(prompt, draft[: min(rule.limit - 1, _LONGEST_DRAFT)], partial(self._finished, rule))

    def _finished(self, rule: "_Rule", out: list[int]) -> bool:
        if out[-1] in rule.ends or len(out) >= rule.limit:
            return True
        if rule.stops and any(stop in self._text(tuple(out)) for stop in rule.stops):
            return True
        return self.stop_when is not None and self._breaks_line(out[-1]) and self.stop_when(self._text(tuple(out)))

    def _breaks_line(self, token: int) -> bool:
        if token not in self._breaks:
            self._breaks[token] = "\n" in self._text((token,))
        return self._breaks[token]

    def _text(self, ids: tuple[int, ...]) -> str:
        if ids not in self._texts:
            if len(self._texts) > _MOST_TEXTS:
                self._texts.clear()
            self._texts[ids] = self.tokenizer.decode(ids, skip_special_tokens=True)
        return self._texts[ids]


def _gold_text(request) -> str:
    for key in ("target", "answer"):
        value = request.doc.get(key)
        if isinstance(value, str):
            return value
    return ""
