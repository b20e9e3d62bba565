"""From examples to tokens: what is learned of them, exact loss weights, batches under a token budget."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import compress

from msft.data.example import Example, fitting_prompts, training_text
from msft.data.mixture import MEASURED, Mixture, without_long
from msft.errors import DataError, ModelError
from msft.packing.rows import grouped

_AT_ONCE = 1000  # texts: while they are tokenised they take much more memory than what is kept of them
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Tokens:
    """One tokenised example: ids of prompt, completion and EOS; the loss starts at `start`."""

    ids: tuple[int, ...]
    start: int

    @property
    def targets(self) -> int:
        """Number of tokens in the loss."""
        return len(self.ids) - self.start


def tokenize(tokenizer, examples: Sequence[Example]) -> list[Tokens]:
    """Tokens of the training texts, EOS added (protocol section 3).

    Prompt and completion are tokenised as one text. A token that straddles the two, as where a tokenizer
    merges the boundary space with '####', belongs to the completion: every token that carries a character of
    the completion is in the loss, and none of the prompt alone. The texts of chat rows hold all special tokens, the
    one that ends the turn too; for them nothing is added.
    """
    if not tokenizer.is_fast or tokenizer.eos_token_id is None:
        lack = "EOS token, with which answers end: set its eos_token" if tokenizer.is_fast else "fast form: convert it"
        way = "then tokenizer.save_pretrained(folder), and take that folder as the model"
        raise ModelError(f"the tokenizer has no {lack}, {way}")
    if not examples:
        return []
    is_chat, eos, rows = bool(examples[0].prompt), tokenizer.eos_token_id, []
    known: dict[int, int] = {}  # each token id is one object, of which a row holds eight bytes
    for first in range(0, len(examples), _AT_ONCE):
        pairs = [training_text(example) for example in examples[first : first + _AT_ONCE]]
        texts = [prompt + completion for prompt, completion in pairs]
        encoded = tokenizer(texts, return_offsets_mapping=True, add_special_tokens=not is_chat)
        for (prompt, _), ids, spans in zip(pairs, encoded["input_ids"], encoded["offset_mapping"], strict=True):
            start = next(i for i, (_, end) in enumerate(spans) if end > len(prompt))
            has_eos = is_chat or (ids[-1] == eos and spans[-1][0] == spans[-1][1])  # some tokenizers add it themselves
            ids = ids if has_eos else [*ids, eos]
            # position 0 has nothing before it to be predicted from
            rows.append(Tokens(tuple(map(known.setdefault, ids, ids)), max(start, 1)))
    return rows


def loss_weights(rows: Sequence[Tokens], group: int) -> list[float]:
    """Weight of every target token of each example of a step, in the step's order.

    A step's loss is the mean over groups of `group` examples of the mean over the group's target tokens
    (protocol section 2), so a token weighs 1 / (target tokens of its group x groups of the step). The
    weighted sum over tokens is that loss, whatever the shape the tensors are batched in.
    """
    groups = [rows[first : first + group] for first in range(0, len(rows), group)]
    totals = [sum(row.targets for row in members) for members in groups]
    return [1.0 / (total * len(groups)) for total, members in zip(totals, groups, strict=True) for _ in members]


def deal_out(lengths: Sequence[int], budget: int, process: int = 0, processes: int = 1) -> list[list[int]]:
    """Positions of one process's rows, the longest first, in batches of at most `budget` padded tokens, or of one row.

    Of the rows in order of length a process has every processes-th. All processes have as many batches, some of them
    empty: sharded weights are gathered in every pass by all.
    """

    def fits(batch: list[int], position: int) -> bool:
        return lengths[batch[0]] * (len(batch) + 1) <= budget

    ranked = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    shares = [grouped(ranked[number::processes], fits) for number in range(processes)]
    return shares[process] + [[]] * (max(map(len, shares)) - len(shares[process]))


def fit_mixture(tokenizer, mixture: Mixture, max_tokens: int, max_prompt_tokens: int):
    """({sub-dataset: Tokens of its train examples}, the mixture without what is too long, prompts).

    prompts: what a model must take to be evaluated, (tokens of the longest prompt, largest token id of all prompts).

    A train example over max_tokens would lose its answer and a prompt over max_prompt_tokens its shots: they are
    left out and counted. Raises DataError with every part of which nothing remains, ModelError for a tokenizer that ends
    every text with a special token.
    """
    if (last := tokenizer("A: ")["input_ids"][-1]) in tokenizer.all_special_ids:
        token = tokenizer.convert_ids_to_tokens(last)
        what = f"the tokenizer ends every text with {token!r}, prompts too, behind which a model answers nothing"
        way = "load it with add_eos_token=False (or without the template of its post-processor)"
        raise ModelError(f"{what}: {way}, then tokenizer.save_pretrained(folder), and take that folder as the model")
    examples, subs, lengths, largest, problems = {}, [], [0], 0, []
    for sub in mixture:
        rows = tokenize(tokenizer, sub.train)
        keep = [len(row.ids) <= max_tokens for row in rows]
        examples[sub.name] = list(compress(rows, keep))
        if not any(keep):
            problems.append(f"{sub.name}: every train example is over max_tokens = {max_tokens}; raise it")
        sub = without_long(sub, "train", keep, f"train example over {max_tokens} tokens")
        _say_unknown(tokenizer, sub.name, "train rows", [row.ids for row in rows])
        for part in MEASURED:
            ids, keep = fitting_prompts(tokenizer, sub.shots, getattr(sub, part), max_prompt_tokens)
            if keep and not any(keep):
                problem = f"every {part} prompt is over max_prompt_tokens = {max_prompt_tokens}; raise it"
                problems.append(f"{sub.name}: {problem}")
            sub = without_long(sub, part, keep, f"{part} prompt over {max_prompt_tokens} tokens")
            _say_unknown(tokenizer, sub.name, f"{part} prompts", ids)
            lengths += map(len, compress(ids, keep))
            largest = max([largest, *(max(prompt) for prompt in ids if prompt)])
        subs.append(sub)
    if problems:
        raise DataError("\n".join(problems))
    return examples, replace(mixture, sub_datasets=subs), (max(lengths), largest)


def _say_unknown(tokenizer, name: str, what: str, texts: Sequence[Sequence[int]]) -> None:
    """Names with their number the texts of which the model is shown a part as the unknown token."""
    unknown = {tokenizer.unk_token_id} - {None, tokenizer.eos_token_id, tokenizer.bos_token_id}
    if count := sum(not unknown.isdisjoint(ids) for ids in texts) if unknown else 0:
        text = "%s: %d of %d %s have characters that the tokenizer does not know; the model sees %s for them"
        _log.warning(text, name, count, len(texts), what, tokenizer.unk_token)


def check_context(
    architecture, examples: Mapping[str, Sequence[Tokens]], prompts: tuple[int, int], max_new_tokens: int
) -> None:
    """Raises ModelError where a model of this configuration has no position, or no embedding, for what a run gives it."""
    text, problems, (longest_prompt, largest_id) = architecture.get_text_config(), [], prompts
    positions, embeddings = (getattr(text, name, None) for name in ("max_position_embeddings", "vocab_size"))
    positions = max(positions or 0, 0)  # XLNet's -1 is no bound
    rows = [row for task in examples.values() for row in task]
    longest = max(len(row.ids) for row in rows)
    if positions and longest_prompt + max_new_tokens > positions:
        needed = f"{longest_prompt} tokens; with max_new_tokens = {max_new_tokens} that is more"
        mend = "Lower max_new_tokens or max_prompt_tokens"
        problems.append(f"the longest prompt has {needed} than the {positions} positions of the model. {mend}")
    if positions and longest > positions:
        problems.append(f"an example has {longest} tokens, the model {positions} positions; lower max_tokens")
    largest = max(largest_id, *(max(row.ids) for row in rows))
    if embeddings and largest >= embeddings:
        mend = "they do not belong together. Take the model's own tokenizer, or resize the embeddings and save it again"
        problems.append(f"the tokenizer gives the id {largest}, the model has {embeddings} embeddings: {mend}")
    if problems:
        raise ModelError("\n".join(problems))
