"""PrefixCachedLM: greedy decoding and log-likelihoods with a shared prefix, as an LM of lm-eval.

    lm = PrefixCachedLM(model, tokenizer)
    lm_eval.simple_evaluate(model=lm, tasks=["gsm8k"])

The tokens that the items of a task have in common, such as five fixed shots, go through the model once; their
keys and values are read by all items. Where the gold answer of an item is known it is tried as a draft: one
forward pass checks it, the longest prefix that greedy decoding agrees with is taken, and decoding goes on from
the first token that differs. The result is exactly that of greedy decoding, token by token.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from lm_eval.api.model import TemplateLM
from lm_eval.models.utils import (
    handle_stop_sequences,
    has_bos_prefix,
    normalize_gen_kwargs,
    postprocess_generated_text,
)
from transformers import DynamicCache

from msft.errors import ModelError
from msft.forward import has_plain_head, selected_logits, shares_cache
from msft.prefix import GrowingLayer, by_prefix, shared_length, widen
from msft.stock import evaluating, quiet_stock_lm, stock_lm

log = logging.getLogger(__name__)


@dataclass
class _Item:
    """One sequence to decode: tokens behind the shared prefix, the draft, and what has been generated."""

    rest: list[int]
    draft: list[int]
    out: list[int] = field(default_factory=list)
    done: bool = False


@dataclass
class _Waiting:
    """Items of one batch that go on token by token: filled places of the cache, keys and values of every layer."""

    items: list[_Item]
    filled: list[int]
    layers: list[tuple[torch.Tensor, torch.Tensor]]
    limit: int
    stops: Sequence[str]


class PrefixCachedLM(TemplateLM):
    """An lm-eval LM over a live Hugging Face causal model.

    model, tokenizer: as loaded by transformers; the model's training mode is put back after each call.
    batch_size: items a forward pass.
    stop_when: text -> bool, asked after each line break; decoding of an item stops where it is true. Leave it out
    to get the same texts as lm-eval's HFLM; msft's own tasks pass `prompts.decided`, which cannot change a score.
    draft_of: request -> text that is tried as a draft; the document's 'target' or 'answer' by default.
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
        self.generated_tokens: dict[str, int] = {}
        self._ids: dict[str, list[int]] = {}
        self._bare_ids: dict[str, list[int]] = {}
        self._eos = tokenizer.eos_token_id
        self._plain = has_plain_head(model)
        self._waiting: list[_Waiting] = []
        self._breaks: dict[int, bool] = {}
        ends = model.generation_config.eos_token_id if model.can_generate() else None  # chat models have several
        self._ends = {self.eot_token_id, *(ends if isinstance(ends, list) else [ends])}
        self._fallback = None
        if not shares_cache(model):
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
        """The generated text of each request, in the requests' order."""
        for request in requests:
            options = normalize_gen_kwargs(request.args[1], self.max_gen_toks)
            if options.get("do_sample") or options.get("temperature"):
                raise ModelError("PrefixCachedLM decodes greedily; take do_sample and temperature away")
        if self._fallback is not None:
            return self._generate_by_stock(requests)
        self._waiting = []  # an error in an earlier call may have left some
        texts: list[str | None] = [None] * len(requests)
        decoding: list[tuple[list[int], list[_Item], list[str]]] = []
        groups: dict[tuple, list[int]] = {}
        for i, request in enumerate(requests):
            groups.setdefault((request.task_name, repr(request.args[1])), []).append(i)
        with evaluating(self.model):
            for members in groups.values():
                options = normalize_gen_kwargs(requests[members[0]].args[1], self.max_gen_toks)
                decoding.append((members, *self._start([requests[i] for i in members], options)))
            self._continue()
        for members, items, until in decoding:
            for i, item in zip(members, items, strict=True):
                texts[i] = postprocess_generated_text(self._text(item.out), until, None)
            name = requests[members[0]].task_name
            self.generated_tokens[name] = self.generated_tokens.get(name, 0) + sum(len(i.out) for i in items)
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
        whole = [(context + continuation)[-(self.max_length + 1) :] for _, context, continuation in requests]
        sizes = [len(continuation) for _, _, continuation in requests]
        scores: list[tuple[float, bool] | None] = [None] * len(requests)
        with evaluating(self.model):
            for members in by_prefix(whole, sizes):
                inputs = [whole[i][:-1] for i in members]
                shared = shared_length(inputs, [sizes[i] - 1 for i in members])
                prefix = self._prefix(inputs[0][:shared])
                ranked = sorted(range(len(members)), key=lambda j: (-len(inputs[j]), inputs[j]))
                for batch in _chunks(ranked, self.batch_size):
                    picked = [members[j] for j in batch]
                    found = self._score_batch(
                        prefix,
                        shared,
                        [inputs[j] for j in batch],
                        [whole[i] for i in picked],
                        [sizes[i] for i in picked],
                    )
                    for i, score in zip(picked, found, strict=True):
                        scores[i] = score
        return scores

    # inside ---------------------------------------------------------------------------------------------

    def _start(self, requests, options: dict) -> tuple[list[_Item], list[str]]:
        """Runs prefix, prompts and drafts of one task's requests; what is not decided then waits."""
        eos_text = self.tokenizer.decode([self.eot_token_id], skip_special_tokens=False)
        until = handle_stop_sequences(options["until"], eos=eos_text)
        limit = options["max_gen_toks"]
        room = self.max_length - limit
        if room <= 0:
            raise ModelError(f"max_gen_toks {limit} leaves no room for a prompt: the model has {self.max_length}")
        contexts = [self.tok_encode(request.args[0])[-room:] for request in requests]
        shared = shared_length(contexts, [0] * len(contexts))
        prefix = self._prefix(contexts[0][:shared])
        items = [
            _Item(context[shared:], self._draft(request)[: limit - 1])
            for context, request in zip(contexts, requests, strict=True)
        ]
        stops = [stop for stop in until if stop != eos_text]
        ranked = sorted(items, key=lambda item: (-len(item.rest) - len(item.draft), item.rest))
        for batch in _chunks(ranked, self.batch_size):
            self._decode(batch, prefix, shared, limit, stops)
        return items, until

    def _draft(self, request) -> list[int]:
        text = self.draft_of(request)
        if not text:
            return []
        return [*self.tok_encode(text, add_special_tokens=False), self.eot_token_id]

    def _text(self, ids: list[int]) -> str:
        return self.tokenizer.decode(ids, skip_special_tokens=True)

    def _finished(self, item: _Item, limit: int, stops: Sequence[str]) -> bool:
        if item.out[-1] in self._ends or len(item.out) >= limit:
            return True
        if stops and any(stop in self._text(item.out) for stop in stops):
            return True
        return self.stop_when is not None and self._breaks_line(item.out[-1]) and self.stop_when(self._text(item.out))

    def _breaks_line(self, token: int) -> bool:
        if token not in self._breaks:
            self._breaks[token] = "\n" in self._text([token])
        return self._breaks[token]

    def _take(self, item: _Item, token: int, limit: int, stops: Sequence[str]) -> None:
        item.out.append(token)
        item.done = self._finished(item, limit, stops)

    def _prefix(self, ids: list[int]) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Keys and values [1, heads, p, d] of every layer for the shared tokens."""
        if not ids:
            return []
        cache = DynamicCache()
        tokens = torch.tensor([ids], device=self.device)
        self.model.base_model(input_ids=tokens, past_key_values=cache, use_cache=True)
        return [(layer.keys, layer.values) for layer in cache.layers]

    def _cache(self, prefix, rows: int) -> DynamicCache:
        if not prefix:
            return DynamicCache()
        return DynamicCache([(k.expand(rows, -1, -1, -1), v.expand(rows, -1, -1, -1)) for k, v in prefix])

    def _pad(self, rows: Sequence[Sequence[int]]) -> torch.Tensor:
        width = max(map(len, rows))
        return torch.tensor([[*row, *[self.eot_token_id] * (width - len(row))] for row in rows], device=self.device)

    def _decode(self, items: list[_Item], prefix, shared: int, limit: int, stops: Sequence[str]) -> None:
        """One pass over prompt and draft of a batch; items whose draft was refused wait for `_continue`."""
        rows = [item.rest + item.draft[:-1] if item.draft else item.rest for item in items]
        input_ids, cache = self._pad(rows), self._cache(prefix, len(items))
        # right-padding needs no mask here: a causal model's real tokens never see what comes after them
        places = [(r, c) for r, item in enumerate(items) for c in range(len(item.rest) - 1, len(rows[r]))]
        where = torch.tensor(places, device=self.device)
        logits = selected_logits(
            self.model, input_ids, where[:, 0], where[:, 1], self._plain, past_key_values=cache, use_cache=True
        )
        choice = iter(logits.argmax(-1).tolist())
        for item in items:
            drafted = [next(choice) for _ in range(max(len(item.draft), 1))]
            for k, token in enumerate(drafted):
                self._take(item, token, limit, stops)
                if item.done or k >= len(item.draft) or token != item.draft[k]:
                    break
        live = [r for r, item in enumerate(items) if not item.done]
        if not live:
            return
        # keys and values behind an item's accepted tokens belong to padding or to refused drafts
        filled = [shared + len(items[r].rest) + len(items[r].out) - 1 for r in live]
        end, index = max(filled), torch.tensor(live, device=self.device)
        layers = [(layer.keys[index, :, :end], layer.values[index, :, :end]) for layer in cache.layers]
        self._waiting.append(_Waiting([items[r] for r in live], filled, layers, limit, stops))
        if sum(len(group.items) for group in self._waiting) >= self.batch_size:
            self._continue()

    def _continue(self) -> None:
        """Greedy decoding, token by token, of all items that wait, whatever task they are from."""
        groups, self._waiting = self._waiting, []
        if not groups:
            return
        items = [item for group in groups for item in group.items]
        rules = [(group.limit, group.stops) for group in groups for _ in group.items]
        filled = [place for group in groups for place in group.filled]
        end = max(filled)
        cache = DynamicCache()
        for n in range(len(groups[0].layers)):
            parts = [torch.cat([widen(group.layers[n][i], end) for group in groups]) for i in (0, 1)]
            cache.layers.append(GrowingLayer(*parts))
        rows, zeros = list(range(len(items))), torch.zeros(len(items), dtype=torch.long, device=self.device)
        used = torch.tensor(filled, device=self.device)
        mask = torch.arange(end, device=self.device).unsqueeze(0) < used.unsqueeze(1)
        while True:
            token = torch.tensor([[items[r].out[-1]] for r in rows], device=self.device)
            mask = torch.cat([mask, mask.new_ones(len(rows), 1)], dim=1)
            logits = selected_logits(
                self.model,
                token,
                torch.arange(len(rows), device=self.device),
                zeros[: len(rows)],
                self._plain,
                past_key_values=cache,
                use_cache=True,
                attention_mask=mask,
                position_ids=used.unsqueeze(1),
            )
            used = used + 1
            for r, choice in zip(rows, logits.argmax(-1).tolist(), strict=True):
                if not items[r].done:
                    self._take(items[r], choice, *rules[r])
            live = [j for j, r in enumerate(rows) if not items[r].done]
            if not live:
                return
            # moving the cache costs more than a few rows too many: rows go when half of them are done
            if 2 * len(live) <= len(rows):
                index = torch.tensor(live, device=self.device)
                cache.batch_select_indices(index)
                mask, used, rows = mask[index], used[index], [rows[j] for j in live]

    def _score_batch(self, prefix, shared: int, inputs, whole, sizes) -> list[tuple[float, bool]]:
        rests = [row[shared:] for row in inputs]
        places = [
            (r, len(rest) - size + k)
            for r, (rest, size) in enumerate(zip(rests, sizes, strict=True))
            for k in range(size)
        ]
        where = torch.tensor(places, device=self.device)
        logits = selected_logits(
            self.model,
            self._pad(rests),
            where[:, 0],
            where[:, 1],
            self._plain,
            past_key_values=self._cache(prefix, len(rests)),
            use_cache=True,
        )
        wanted = [token for row, size in zip(whole, sizes, strict=True) for token in row[-size:]]
        target = torch.tensor(wanted, device=self.device)
        log_probs = torch.log_softmax(logits.float(), -1).gather(1, target.unsqueeze(1)).squeeze(1)
        greedy = logits.argmax(-1) == target
        return [
            (float(p.sum()), bool(g.all())) for p, g in zip(log_probs.split(sizes), greedy.split(sizes), strict=True)
        ]


def _gold_text(request) -> str:
    for key in ("target", "answer"):
        value = request.doc.get(key)
        if isinstance(value, str):
            return value
    return ""


def _chunks(values: Sequence, size: int):
    for first in range(0, len(values), size):
        yield values[first : first + size]
