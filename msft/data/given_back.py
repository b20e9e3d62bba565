"""Whether a right answer can score: the gold answers as the tokenizer gives them back, the chat template included.

A tokenizer may compose letters, strip accents, collapse blanks or lose characters, and a template may write around an
answer: what the model can say at best is decode(encode(target)), and that must be right.
"""

import functools
import logging
import unicodedata
from dataclasses import replace

from msft.data.chat import special_tokens
from msft.data.example import Example, documents, target_text
from msft.data.metrics import LOSS
from msft.data.mixture import MEASURED, Mixture, SubDataset
from msft.data.scoring import extract, is_right, lowered, unwrapped
from msft.errors import DataError, each, shortened, together

_log = logging.getLogger(__name__)


@functools.lru_cache(maxsize=2**12)  # of many rows the answers are few letters
def _through(tokenizer, text: str, limit: int | None = None) -> str:
    """A text as the tokenizer gives it back, its first `limit` tokens alone."""
    return tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"][:limit], skip_special_tokens=True)


def _letters(text: str) -> str:
    """A text without what a normaliser may change: accents, case, compatible forms, white space."""
    plain = unicodedata.normalize("NFKD", text.casefold())
    return "".join(char for char in plain if not unicodedata.combining(char) and not char.isspace())


def _is_right(text: str, example: Example, metric: str) -> bool:
    return is_right(text, documents([example], metric)[0])


def given_back(tokenizer, example: Example, metric: str, stop: str = "") -> Example:
    """The example with what is written around its answer, and its answer in the form in which it comes back.

    stop: what ends an answer beside EOS. Raises DataError where no answer could be right: the tokenizer loses characters
    of it, or its text holds what ends it.
    """
    taught = example.messages[-1][1] if example.messages else example.target
    if end := next((token for token in (stop, tokenizer.eos_token) if token and token in taught), ""):
        what = f"its answer, or the thought or rationale before it, holds {end!r}, with which every answer ends"
        raise DataError(f"{what}: write that in another way")
    text, gold = _through(tokenizer, example.target), example.answer.strip().rstrip(".").strip()
    said = _through(tokenizer, example.messages[-1][1]).strip() if example.messages else ""
    if said and said in text:
        before, _, after = text.rpartition(said)
        example = replace(example, around=(before.lstrip(), after.rstrip(". \n\t")))
    if _is_right(text, example, metric):
        return example
    form = extract(unwrapped(text, documents([example])[0]))
    example = replace(example, answer=form)
    # another form of a number is another number
    lossless = form and metric != "number_match" and _letters(form) == _letters(gold)
    if not lossless or not _is_right(text, example, metric):
        what = f"the tokenizer gives the answer {gold[:60]!r} back as {form[:60]!r}, so that it could never be right"
        why = "it lacks characters of it, or the chat template changes it"
        raise DataError(f"{what}: {why}. Take another tokenizer, or write the answer in characters that it has")
    return example


def _of_sub(tokenizer, sub: SubDataset) -> tuple[SubDataset, list[str]]:
    """(the sub-dataset with its scored golds as they come back, problems with file and line)."""
    parts, problems, first, left_out = {}, [], {}, dict(sub.left_out)
    _, refused = each(lambda example: given_back(tokenizer, example, sub.metric, sub.stop), sub.train)
    if refused:
        example, error = refused[0]
        text = "%s: %d of %d train answers are not what the tokenizer gives back, and would be learned so: %s: %s"
        _log.warning(text, sub.name, len(refused), len(sub.train), example.place or "train", error)
    for part in MEASURED:
        parts[part], wrong = [], []
        for number, example in enumerate(getattr(sub, part), 1):
            place = example.place or f"{part} {number}"
            try:
                back = given_back(tokenizer, example, sub.metric, sub.stop)
            except DataError as error:
                wrong.append(f"{place}: {error}")
                continue
            parts[part].append(back)
            answer, other = lowered(example.answer), back.answer != example.answer
            known, known_other, known_place = first.setdefault(lowered(back.answer), (answer, other, place))
            if known != answer and (other or known_other):
                both = f"{answer[:60]!r} and {known[:60]!r} ({known_place})"
                mend = "take another tokenizer, or write one of them in another way"
                problems.append(f"{sub.name}: {place}: the tokenizer gives the answers {both} back alike; {mend}")
        if wrong and parts[part] and sub.skips:
            left_out[f"{part}: answers that could never be right, such as {wrong[0]}"] = len(wrong)
        else:
            problems += [f"{sub.name}: {problem}" for problem in wrong]
    return replace(sub, **parts, left_out=left_out), problems


def _say_special(tokenizer, sub: SubDataset) -> None:
    """Names with their number the rows in which the tokenizer reads a special token, such as the end of a turn."""
    special = special_tokens(tokenizer)
    items = [example for part in ("train", *MEASURED) for example in getattr(sub, part)]
    texts = (f"{item.question}\n{item.messages[-1][1] if item.messages else item.target}" for item in items)
    marked = [(item, match[0]) for item, text in zip(items, texts, strict=True) if (match := special.search(text))]
    if marked:
        text = "%s: %d of %d rows hold special tokens, which the tokenizer reads as such: %r (%s)"
        _log.warning(text, sub.name, len(marked), len(items), marked[0][1], marked[0][0].place)


def checked(mixture: Mixture, tokenizer) -> Mixture:
    """The mixture with its scored golds as the tokenizer gives them back. Raises DataError with every row that never could
    be right."""
    for sub in mixture:
        _say_special(tokenizer, sub)
    pairs = [(sub, []) if sub.metric == LOSS else _of_sub(tokenizer, sub) for sub in mixture]
    if problems := [problem for _, wrong in pairs for problem in shortened(wrong)]:
        raise DataError(together("a right answer to these rows could never score:", problems))
    return replace(mixture, sub_datasets=[sub for sub, _ in pairs])


def check_room(mixture: Mixture, tokenizer, max_new_tokens: int) -> None:
    """Names with their number the items of which the target, cut at max_new_tokens, is no longer right.

    Raises DataError where no item of a set could be answered right: the answer without its rationale is cut too.
    """
    problems = []
    for sub in mixture:
        for part in MEASURED if sub.metric != LOSS else ():

            def is_cut(example: Example, text: str, metric: str = sub.metric) -> bool:
                return not _is_right(_through(tokenizer, text, max_new_tokens), example, metric)

            cut = [example for example in getattr(sub, part) if is_cut(example, example.target)]
            if not cut:
                continue
            longest = max(len(tokenizer(e.target, add_special_tokens=False)["input_ids"]) for e in cut)
            count = f"{len(cut)} of the {len(getattr(sub, part))} {part} targets"
            problem = f"{sub.name}: max_new_tokens = {max_new_tokens} cuts {count}, which would be scored as wrong; "
            problem += f"the longest has {longest} tokens: raise max_new_tokens"
            is_hopeless = all(e.messages or is_cut(e, target_text(e.answer)) for e in cut)
            if is_hopeless and len(cut) == len(getattr(sub, part)):
                problems.append(problem)
            else:
                _log.warning("%s", problem)
    if problems:
        raise DataError(together("no right answer is possible:", problems))
