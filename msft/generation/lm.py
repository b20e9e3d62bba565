"""PrefixCachedLM: lm-eval's HFLM with greedy decoding and log-likelihoods over shared prefixes.

    lm = PrefixCachedLM(model, tokenizer)
    lm_eval.simple_evaluate(model=lm, tasks=["gsm8k"])

The tokens that the items of a task have in common, such as five fixed shots, go through the model once; their
keys and values are read by all items. Where the gold answer of an item is known it is tried as a draft: one
forward pass checks it, the longest prefix that greedy decoding agrees with is taken, and decoding goes on from
the first token that differs. The result is exactly that of greedy decoding, token by token. What this was not shown
equal for, a model's layers or a request's options, goes through HFLM.
"""

import contextlib
import copy
import functools
import logging
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from lm_eval.models.huggingface import HFLM
from lm_eval.models.utils import handle_stop_sequences, has_bos_prefix, normalize_gen_kwargs, postprocess_generated_text
from transformers.quantizers import AutoQuantizationConfig

from msft.errors import ModelError, Stopped
from msft.generation.decoding import Batches, decode, make_batches
from msft.generation.likelihood import score
from msft.generation.options import changes_greedy, check_lm_options, check_request, ends, padded
from msft.generation.steps import Item
from msft.packing.attention import evaluating, packed_attention
from msft.packing.probe import begin_row, keep_apart, mixes_rows, reads_padding, why_not_packed
from msft.packing.products import laid_out

_MOST_TEXTS = 2**17  # texts of token sequences that are remembered
# tokens of a gold answer that is tried whole, and of a longer one: greedy decoding seldom agrees with much of what is
# written out. Where its loss is asked, it is tried whole
_SHORT, _BEGINNING = 12, 4
_CHANGING = ("mixed_precision_dtype", "softmax_dtype", "think_end_token", "truncation")  # what HFLM alone does
_AUTO_BATCH = 64  # rows a pass under batch_size="auto"; the tokens of a pass bound its memory anyway


class _Rule(NamedTuple):
    """Options of a request.

    until, stops: stop sequences with and without EOS's text.  limit: tokens at most.  room: tokens of a prompt at most.
    ends: tokens that end a text.  stock: why HFLM answers it, or ''.
    """

    until: list[str]
    stops: list[str]
    limit: int
    room: int
    ends: list[int]
    stock: str


class Prepared(NamedTuple):
    """Requests and what of them does not depend on the weights: fast, the places of those in `batches`."""

    requests: Sequence
    rules: Sequence[_Rule]
    fast: list[int]
    batches: Batches


class Answer(NamedTuple):
    """The generated text of a request, and the mean token loss of its gold answer in nats, where it was asked for."""

    text: str
    loss: float | None = None


class PrefixCachedLM(HFLM):
    """An lm-eval LM over a live Hugging Face causal model.

    model, tokenizer: as loaded by transformers; the model's training mode is put back after each call.
    batch_size: items a forward pass at most, or "auto".
    stop_when: text -> bool, asked after each line break; decoding of an item stops where it is true. Leave it out
    to get the same texts as lm-eval's HFLM; msft's own tasks pass `scoring.decided`, which cannot change a score.
    draft_of: request -> text that is tried as a draft; the document's 'target' or 'answer' by default.
    encoded: a dict of texts' token ids, filled here; LMs of one tokenizer, made with the same options, may share it.
    options: further ones of HFLM; those that change what it computes (_CHANGING) send all requests to it.
    path: 'packed', or 'HFLM: ' and why.
    should_stop: an attribute, None, a bool or a function without arguments, asked before every forward pass: where it
    is true the call raises Stopped.
    Raises ModelError for an option or a quantization that nobody knows, weights that are not the model's, and requests
    without tokens.
    """

    def __init__(
        self,
        model,
        tokenizer,
        batch_size: int | str = 32,
        *,
        stop_when: Callable[[str], bool] | None = None,
        draft_of: Callable[[object], str] | None = None,
        encoded: dict | None = None,
        **options,
    ):
        check_lm_options(options)
        model = _without_wrapper(model)
        tokenizer = padded(tokenizer, model)
        batch_size = 1 if mixes_rows(model) else batch_size
        _check_quantization(model)
        keep_apart(model)
        # HFLM goes by the architecture's name, which the decoder of BART, say, shares with the whole of it
        options.setdefault("backend", "seq2seq" if model.config.is_encoder_decoder else "causal")
        with _as_it_was(model):
            super().__init__(pretrained=model, tokenizer=tokenizer, batch_size=batch_size, **options)
        self.stop_when, self.draft_of = stop_when, draft_of or _gold_text
        self.should_stop: Callable[[], bool] | bool | None = None
        self._rows = self.batch_size if isinstance(self.batch_size, int) else _AUTO_BATCH
        self.generated_tokens: Counter[str] = Counter()  # of each task
        self._ids: dict[tuple, list[int]] = {} if encoded is None else encoded
        decode_ids = functools.partial(self.tokenizer.decode, skip_special_tokens=True)
        self._text = functools.lru_cache(_MOST_TEXTS)(decode_ids)
        changing = [name for name in _CHANGING if options.get(name)]
        reason = f"it was made with {', '.join(changing)}" if changing else why_not_packed(model)
        if reason and self.batch_size != 1 and reads_padding(model):
            reason += "; what pads a row changes it, so rows go one at a time"
            self.batch_size_per_gpu = 1
        self.path = f"HFLM: {reason}" if reason else "packed"
        if reason:
            warnings.warn(f"{type(model).__name__} goes through lm-eval's HFLM, since {reason}", stacklevel=2)

    # lm-eval's interface -------------------------------------------------------------------------------

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **options) -> list[int]:
        """Token ids of a text, as HFLM encodes it; remembered, since a run asks for the same texts again."""
        key = (string, add_special_tokens, *options.items())
        if key not in self._ids:
            self._ids[key] = super().tok_encode(string, add_special_tokens, **options)
        return self._ids[key]

    def generate_until(self, requests, disable_tqdm: bool = False) -> list[str]:
        """The generated text of each request, in the requests' order. Raises Stopped where should_stop() is true."""
        return [answer.text for answer in self.answer(self.prepare(requests))]

    def loglikelihood_rolling(self, requests, disable_tqdm: bool = False) -> list[float]:
        """Summed log-likelihood of each text; packed, weights are laid out once for the windows of all of them."""
        if self.path != "packed":
            return super().loglikelihood_rolling(requests, disable_tqdm=disable_tqdm)
        lm = copy.copy(self)  # for "auto" HFLM would look for a size, by passes of the model's whole length
        lm.batch_size_per_gpu = self._rows
        with laid_out(self.model):
            return super(PrefixCachedLM, lm).loglikelihood_rolling(requests, disable_tqdm=disable_tqdm)

    def prepare(self, requests, with_losses: bool = False) -> Prepared:
        """Tokens, prefixes and batches of generate_until requests: what does not depend on the weights.

        An evaluation that comes again and again makes it once and gives it to `answer`.
        with_losses: ask for the losses of gold answers; what goes through HFLM has none.
        """
        by_options = {repr(request.args[1]): request.args[1] for request in requests}
        by_options = {key: self._rule(options) for key, options in by_options.items()}
        rules = [by_options[repr(request.args[1])] for request in requests]
        fast = [i for i, rule in enumerate(rules) if not rule.stock]
        for reason in sorted({rule.stock for rule in rules if rule.stock} if self.path == "packed" else ()):
            warnings.warn(f"requests go through lm-eval's HFLM, since {reason}", stacklevel=2)
        cuts = Counter(rules[i].room for i in fast if len(self.tok_encode(requests[i].args[0])) > rules[i].room)
        for room, count in sorted(cuts.items()):
            _say_cuts(count, room)
        items = [self._item(requests[i], rules[i], with_losses) for i in fast]
        return Prepared(requests, rules, fast, make_batches(items, self._rows, self.model))

    def gold(self, request) -> tuple[list[int], list[int]]:
        """(tokens of a request's prompt, tokens of its gold answer): its text and EOS, where no stop ends it already.

        The answer is in the form in which it is trained, prompt and answer encoded as one text: where a tokenizer (a fast
        one, as for training) merges the prompt's last space with '####', the token of both is the answer's first. That is
        what a trained model says, behind the prompt's own token of the space too (loss.tokens.tokenize).
        """
        prompt, text, stops = request.args[0], self.draft_of(request), tuple(request.args[1].get("until", ()))
        # from the last line with a text on: behind nothing, tokenizers of the Llama kind would begin with a space's token
        line = prompt[prompt.rfind("\n", 0, len(prompt.rstrip())) + 1 :]
        if (ids := self._ids.get((line, text))) is None:
            encoded = self.tokenizer(line + text, add_special_tokens=False, return_offsets_mapping=True)
            spans = zip(encoded["input_ids"], encoded["offset_mapping"], strict=True)
            ids = self._ids[line, text] = [token for token, (_, end) in spans if end > len(line)]
        return self.tok_encode(prompt), ids if text.endswith(stops) else [*ids, self.eot_token_id]

    def answer(self, prepared: Prepared) -> list[Answer]:
        """The answers to prepared requests with the weights that the model has now."""
        requests, rules, items = prepared.requests, prepared.rules, prepared.batches.items
        tokens, losses = [], {}
        if prepared.fast:  # else the model may be one that packed attention does not fit
            with _answering(self.model):
                tokens, losses = decode(self.model, prepared.batches, self._rows, self._pause)
        losses = {i: losses[n] / items[n].gold for n, i in enumerate(prepared.fast) if items[n].gold}
        texts: dict[int, str] = {}
        for i, ids in zip(prepared.fast, tokens, strict=True):
            texts[i] = postprocess_generated_text(self._text(tuple(ids)), rules[i].until, None)
            self.generated_tokens[requests[i].task_name] += len(ids)
            self.cache_hook.add_partial("generate_until", requests[i].args, texts[i])
        texts |= self._generate_by_stock({i: requests[i] for i, rule in enumerate(rules) if rule.stock})
        return [Answer(texts[i], losses.get(i)) for i in range(len(requests))]

    def _generate_by_stock(self, requests: dict) -> dict[int, str]:
        if not requests:
            return {}
        places, texts = {}, {}
        for i, request in requests.items():
            # HFLM asks the first prompt of a batch alone whether BOS is to be added to all of them
            places.setdefault(has_bos_prefix(request.args[0], self.tokenizer.bos_token), []).append(i)
        with _answering(self.model, packed=False):
            for some in places.values():
                generated = super().generate_until([requests[i] for i in some], disable_tqdm=True)
                texts |= zip(some, generated, strict=True)
        for i, text in texts.items():
            # HFLM gives texts only: their tokens and EOS stand for what was generated
            self.generated_tokens[requests[i].task_name] += len(self.tok_encode(text, add_special_tokens=False)) + 1
        return texts

    def _model_generate(self, context, max_length: int, stop: list[str], **options):
        self._pause()
        begin_row(self.model)
        # a stop that is a special token is not in the decoded texts: named as an end, it ends each row by itself
        options["eos_token_id"] = ends(self.model, self.tokenizer, stop, options.get("eos_token_id"))
        return super()._model_generate(context, max_length, stop, **options)

    def _model_call(self, *inputs, **options):
        self._pause()
        begin_row(self.model)
        return super()._model_call(*inputs, **options)

    def _loglikelihood_tokens(self, requests, disable_tqdm: bool = False, override_bs: int | None = None):
        """(log-likelihood, is greedy) of each (texts, context ids, continuation ids)."""
        for texts, context, continuation in requests:
            if not context or not continuation or len(continuation) > self.max_length:
                lengths = f"{len(context)} context and {len(continuation)} continuation tokens"
                mend = f"each needs one at least, and a continuation may have {self.max_length} (the model's length)"
                raise ModelError(f"the request {texts!r} has {lengths}; {mend}")
        if self.path != "packed":
            with _as_it_was(self.model):
                return super()._loglikelihood_tokens(requests, disable_tqdm=True, override_bs=override_bs)
        most = self.max_length + 1
        pairs = [((a + b)[-most : -len(b)], b) for _, a, b in requests]
        _say_cuts(sum(len(a) + len(b) > most for _, a, b in requests), most)
        with _answering(self.model):
            scores = score(self.model, pairs, self._rows, self._pause)
        for (texts, _, _), pair_score in zip(requests, scores, strict=True):
            if texts is not None:  # a window of a longer text has none
                self.cache_hook.add_partial("loglikelihood", texts, pair_score)
        return scores

    # inside ---------------------------------------------------------------------------------------------

    def _pause(self) -> None:
        if self.should_stop is not None and (self.should_stop() if callable(self.should_stop) else self.should_stop):
            raise Stopped("the evaluation was asked to stop between two batches")

    def _rule(self, request_options: dict) -> _Rule:
        check_request(request_options)
        if self.eot_token_id is None:
            raise ModelError("the tokenizer has no EOS token, without which no text ends: set its eos_token")
        options = normalize_gen_kwargs(request_options, self.max_gen_toks)
        eos_text = self.tokenizer.decode([self.eot_token_id], skip_special_tokens=False)
        until, limit = handle_stop_sequences(options["until"], eos=eos_text), options["max_gen_toks"]
        stock = self.path.removeprefix("HFLM: ") if self.path != "packed" else changes_greedy(self.model, options)
        room = self.max_length - limit
        if room <= 0:
            raise ModelError(f"max_gen_toks {limit} leaves no room for a prompt: the model has {self.max_length}")
        configured = getattr(self.model.generation_config, "max_new_tokens", None)
        if configured not in (None, limit):  # transformers obeys it before what HFLM asks for
            said = f"the model's generation_config has max_new_tokens = {configured}, which goes before max_gen_toks = {limit}"
            warnings.warn(f"{said}, as in lm-eval's HFLM; set it to None to have max_gen_toks obeyed", stacklevel=3)
            limit = configured
        if limit < 1:
            raise ModelError(f"max_gen_toks {limit} asks for no token; it must be at least 1")
        stops = [stop for stop in until if stop != eos_text]
        return _Rule(until, stops, limit, room, ends(self.model, self.tokenizer, stops), stock)

    def _item(self, request, rule: _Rule, with_loss: bool) -> Item:
        ids = self.tok_encode(request.args[0])
        if not ids:
            raise ModelError("a request's context has no token; this model cannot begin from nothing")
        text, draft = self.draft_of(request), []
        if text and with_loss:
            draft = self.gold(request)[1]
        elif text:
            draft = [*self.tok_encode(text, add_special_tokens=False), self.eot_token_id]
            draft = draft[: min(rule.limit - 1, len(draft) if len(draft) <= _SHORT else _BEGINNING)]
        gold = len(draft) if with_loss else 0
        return Item(ids[-rule.room :], draft, functools.partial(self._finished, rule), rule.limit, gold)

    def _finished(self, rule: _Rule, ids: list[int]) -> bool:
        if ids[-1] in rule.ends or len(ids) >= rule.limit:
            return True
        # a stop that ends in the newest token: its text is no longer than these tokens' (one missed is cut off later)
        if rule.stops:
            tail = self._text(tuple(ids[-max(map(len, rule.stops)) - 4 :]))
            if any(stop in tail for stop in rule.stops):
                return True
        return self.stop_when is not None and "\n" in self._text((ids[-1],)) and self.stop_when(self._text(tuple(ids)))


def _check_quantization(model) -> None:
    """Raises ModelError for a quantization of the configuration that transformers skips and HFLM dies of."""
    config = getattr(model.config, "quantization_config", None)
    try:
        AutoQuantizationConfig.from_dict(config) if isinstance(config, dict) else None
    except ValueError as error:
        said = f"the model's config.json has quantization_config with quant_method = {config.get('quant_method')!r}"
        mend = "if the weights are plain ones, delete quantization_config there"
        raise ModelError(f"{said}, which transformers does not take ({error}); {mend}") from error


def _without_wrapper(model):
    """The model with a LoRA adapter in its layers that peft's wrapper only calls; any other model as it is."""
    is_lora = getattr(model, "peft_type", None) == "LORA"
    is_called = is_lora and not any(config.alora_invocation_tokens for config in model.peft_config.values())
    return model.get_base_model() if is_called else model


@contextlib.contextmanager
def _as_it_was(model):
    """Evaluation mode for a while, and HFLM's warning about live models unsaid."""
    logger = logging.getLogger("lm_eval.models.huggingface")
    with evaluating(model), contextlib.ExitStack() as undo:
        undo.callback(logger.setLevel, logger.level)
        logger.setLevel(logging.ERROR)
        yield


@contextlib.contextmanager
def _answering(model, packed: bool = True):
    """Weights laid out for products, and, for packed passes, attention that reads prefixes in place; no gradients."""
    attention = packed_attention(model) if packed else contextlib.nullcontext()
    with _as_it_was(model), torch.inference_mode(), laid_out(model, packed), attention:
        yield


def _say_cuts(count: int, most: int) -> None:
    if count:
        warnings.warn(f"{count} prompts were longer than {most} tokens: their beginnings were cut off", stacklevel=3)


def _gold_text(request) -> str:
    doc = request.doc if isinstance(request.doc, dict) else {}
    return next((doc[key] for key in ("target", "answer") if isinstance(doc.get(key), str)), "")
