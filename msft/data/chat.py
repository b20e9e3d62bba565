"""The texts of chat rows, as the tokenizer's chat template writes them.

The prompt is the template of all messages but the last with its generation prompt, the completion what the template of
all messages adds to that. The loss is on the last assistant message and the token that ends its turn; test items are
answered zero-shot from the same prompt.
"""

import datetime
import logging
import os
import re
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from msft.data.example import Example
from msft.data.mixture import MEASURED
from msft.errors import DataError, ModelError, each, shortened, together

_log = logging.getLogger(__name__)
_CLOCK = re.compile(r"""\bstrftime_now\((['"])(.*?)\1\)""")
_SAVE = "then tokenizer.save_pretrained(folder), and take that folder as the model"
_DAY = datetime.datetime(2024, 7, 26)  # the date that Llama 3's template takes where it has no clock


def rendered(mixture, tokenizer):
    """The mixture with the prompts and completions of its chat rows as the tokenizer's template writes them.

    Raises ModelError for a tokenizer without a template or one that adds tokens to it, DataError with every row that the
    template does not take.
    """
    chats = [sub.name for sub in mixture if sub.is_chat]
    if not chats:
        return mixture
    if not tokenizer.chat_template:
        what = f"{', '.join(chats)}: these sub-datasets have chat rows, and the tokenizer has no chat template"
        way = "save one with it: tokenizer.chat_template = ..., tokenizer.save_pretrained(folder)"
        raise ModelError(f"{what}. Take a model whose tokenizer has one, or {way}")
    subs, problems = [], []
    render = partial(tokenizer.apply_chat_template, chat_template=_undated(tokenizer), tokenize=False)
    write = partial(_written, tokenizer, render, special_tokens(tokenizer))
    for sub in mixture:
        parts, stops, closed, left_out = {}, [], 0, dict(sub.left_out)
        for part in ("train", *MEASURED) if sub.is_chat else ():
            pairs, refused = each(write, getattr(sub, part))
            refusals = [f"{example.place or part}: {error}" for example, error in refused]
            if refusals and pairs and sub.skips:
                left_out[f"{part}: rows that the chat template does not take, such as {refusals[0]}"] = len(refusals)
            else:
                problems += [f"{sub.name}: {problem}" for problem in refusals]
            parts[part] = [example for example, _, _ in pairs]
            stops += [stop for _, stop, _ in pairs]
            closed += sum(is_closed for _, _, is_closed in pairs)
        if closed:
            text = "%s: %d chats answer without a thought, which the generation prompt opens: theirs has enable_thinking=False"
            _log.warning(text, sub.name, closed)
        subs.append(replace(sub, **parts, left_out=left_out, stop=stops[0] if stops else ""))
    if problems:
        raise DataError(together("the chat template does not take these rows:", shortened(problems, 20)))
    return replace(mixture, sub_datasets=subs)


def _undated(tokenizer) -> str:
    """The chat template with one date in place of its clock, which would make another run of it every day."""
    try:
        template = tokenizer.get_chat_template()
        fixed = _CLOCK.sub(lambda call: repr(_DAY.strftime(call[2])), template)
    except (ValueError, TypeError) as error:  # several, and none by default; or no text
        raise ModelError(f"the tokenizer's chat template cannot be chosen: {error}") from None
    if fixed != template:
        _log.warning("the chat template writes today's date; %s stands in its place", f"{_DAY:%d %B %Y}")
    return fixed


def special_tokens(tokenizer) -> re.Pattern:
    """What finds the special tokens of a tokenizer in a text."""
    tokens = {str(token) for token in tokenizer.added_tokens_decoder.values() if token.special}
    tokens |= set(tokenizer.all_special_tokens)
    return re.compile("|".join(map(re.escape, sorted(tokens, key=len, reverse=True))) or "(?!)")


def _written(tokenizer, render: Callable, special: re.Pattern, example: Example) -> tuple[Example, str, bool]:
    """(the example with the template's texts, the text of the token that ends a turn, whether its prompt is the one that
    asks for no thought). render: messages to text.  special: finds special tokens."""
    prompt, text, is_closed = _prompt_and_text(tokenizer, render, example)
    _check_nothing_is_lost(example, text)
    completion, stop = _turn(tokenizer, special, prompt, text)
    return replace(example, prompt=prompt, target=completion), stop, is_closed


def _prompt_and_text(tokenizer, render: Callable, example: Example) -> tuple[str, str, bool]:
    """(the prompt, the text of all messages, which begins with it, whether that prompt asks for no thought)."""
    messages = [{"role": role, "content": content} for role, content in example.messages]
    # where the generation prompt opens a thought, an answer without one stands behind the prompt that closes it
    for how in ({}, {"enable_thinking": False}):
        try:
            prompt, text = render(messages[:-1], add_generation_prompt=True, **how), render(messages, **how)
        except Exception as error:  # a template raises what it likes: jinja's errors, its own raise_exception
            raise DataError(f"the template refuses it: {str(error).strip() or type(error).__name__}") from None
        asked, ids = (tokenizer(part, add_special_tokens=False)["input_ids"] for part in (prompt, text))
        if asked and ids[: len(asked)] == asked and text.startswith(prompt):
            _check_special_tokens(tokenizer, prompt, asked)
            return prompt, text, bool(how)
    what = "the template of all messages does not begin with the tokens of the generation prompt"
    why = "white space that belongs to both, a thought that the prompt alone opens, or earlier turns written anew"
    way = "Set tokenizer.chat_template to one that writes before an answer what its generation prompt writes"
    raise DataError(f"{what}, and prompt and answer cannot be told apart: {why}. {way}, {_SAVE}")


def _check_nothing_is_lost(example: Example, text: str) -> None:
    *earlier, (last, answer) = example.messages
    # what reasoning stands before an earlier answer, templates leave out on purpose
    said = [(role, content.rpartition("</think>")[2:]) for role, content in earlier]
    said.append((last, re.split("</?think>", answer)))
    if lost := [role for role, parts in said if any(part.strip() not in text for part in parts)]:
        raise DataError(f"the template leaves out or changes what the {lost[0]} message says, so that it would be lost")


def _turn(tokenizer, special: re.Pattern, prompt: str, text: str) -> tuple[str, str]:
    """(what the text adds to its prompt, up to the end of the turn, the text of the token that ends it)."""
    added = text[len(prompt) :]
    # a template that always opens the next turn ends prompt and text alike: the turn ends with the first token of that end
    shared = os.path.commonprefix([prompt[::-1], added[::-1]])[::-1]
    ends = [match.end() for match in special.finditer(shared)]
    completion = added[: len(added) - len(shared) + ends[0] if len(ends) > 1 else None].rstrip()
    if stops := [match[0] for match in special.finditer(completion) if match.end() == len(completion)]:
        return completion, stops[0]
    if tokenizer.eos_token is None:
        what = "the tokenizer has no EOS token and its chat template ends no turn with a special token: no answer would end"
        raise ModelError(f"{what}. Set tokenizer.eos_token, {_SAVE}")
    return completion + tokenizer.eos_token, tokenizer.eos_token


def _check_special_tokens(tokenizer, prompt: str, asked: list[int]) -> None:
    """Raises ModelError where stock tools, which let the tokenizer add its special tokens, would see another prompt."""
    has_bos = bool(tokenizer.bos_token) and prompt.startswith(tokenizer.bos_token)
    whole = tokenizer(prompt, add_special_tokens=not has_bos)["input_ids"]
    if whole != asked:
        added = ", ".join(tokenizer.convert_ids_to_tokens([i for i in dict.fromkeys(whole) if i not in asked]))
        what = f"the tokenizer adds special tokens ({added}) that its chat template does not write, so that stock tools"
        bos = "the template '{{ bos_token }}' + tokenizer.chat_template, or add_bos_token=False"
        raise ModelError(f"{what} would see other prompts than training. For a BOS set {bos}, {_SAVE}")
