"""The exact strings of the five-shot protocol: training text, shots, test prompt (paper section 4.1).

Everything here works on text alone; scoring.py reads what comes back, msft.loss.tokens makes tokens of it.
"""

import hashlib
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

SHOTS = 5
# control characters but white space, soft hyphens, marks that join, part, turn or tag text or choose a glyph's form
_WITHOUT_WIDTH = re.compile(
    "[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\u00ad\u034f\u061c\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f"
    "\ufe00-\ufe0f\ufeff\ufff9-\ufffb\U000e0000-\U000e0fff]"
)


@dataclass(frozen=True)
class Example:
    """One question with what the model is trained to say and what is scored.

    question: the rendered question, options included, without 'Q: '.
    target: the text to learn, '#### answer' or 'rationale #### answer'.
    answer: the gold answer that the metric compares with.
    messages: of a chat row, (role, content) pairs; place: its file and line.
    prompt: of a chat row, the chat template's text; the target is then what the template adds to it (chat.rendered).
    around: what the template writes before and behind an answer, as the tokenizer gives it back.
    """

    question: str
    target: str
    answer: str
    messages: tuple[tuple[str, str], ...] = ()
    prompt: str = ""
    place: str = field(default="", compare=False, repr=False)
    around: tuple[str, str] = ("", "")

    @cached_property
    def question_key(self) -> bytes:
        """What makes two questions the same: a digest of the text but for case, white space, how letters are composed,
        and marks without a width."""
        text = " ".join(_WITHOUT_WIDTH.sub("", unicodedata.normalize("NFC", self.question).lower()).split())
        return hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=16).digest()


def target_text(answer: str, rationale: str | None = None) -> str:
    """'#### answer', behind the rationale where there is one."""
    return f"#### {answer}" if not rationale else f"{rationale} #### {answer}"


def training_text(example: Example) -> tuple[str, str]:
    """(prompt, completion) of one training example; the loss is on the completion and EOS only.

    The completion of a chat row holds the token that ends the turn, and no EOS comes behind it.
    """
    if not isinstance(example, Example):
        raise TypeError(f"give an example, such as mixture['name'].train[0]; found {example!r:.60}")
    if example.prompt:
        return example.prompt, example.target
    return f"Q: {example.question}\nA: ", example.target


def shot_text(example: Example) -> str:
    """A shot: the training text, with a dot after an answer that stands alone ('#### C.')."""
    prompt, completion = training_text(example)
    alone = completion.startswith("####")
    return prompt + completion + ("." if alone and not completion.endswith(".") else "")


def shots_text(shots: Sequence[Example]) -> str:
    """The five shots, each closed by one newline: the prefix that all items of a sub-dataset share."""
    return "".join(shot_text(shot) + "\n" for shot in shots)


def test_prompt(sub_dataset, example: Example) -> str:
    """The exact five-shot prompt of one test item, trailing space included."""
    if not hasattr(sub_dataset, "shots"):
        raise TypeError(f"give a sub-dataset first, such as mixture['name']; found {sub_dataset!r:.60}")
    return shots_text(sub_dataset.shots) + training_text(example)[0]


test_prompt.__test__ = False  # pytest would collect the name


def fitting_prompts(tokenizer, shots: Sequence[Example], examples: Sequence[Example], most: int):
    """(token ids of each example's test prompt, whether they are at most `most`): a longer one is not evaluated."""
    prompts = [shots_text(shots) + training_text(example)[0] for example in examples]
    ids = tokenizer(prompts, verbose=False)["input_ids"] if prompts else []
    return ids, [len(prompt) <= most for prompt in ids]


def documents(examples: Sequence[Example], metric: str = "") -> list[dict]:
    """What lm-eval needs of each example, all rows with the same keys: prompt, target, answer.

    Beside them the metric, where it is not the paper's, and what a chat template writes around answers (scoring.unwrapped).
    """
    is_chat, rows = any(example.messages for example in examples), []
    for example in examples:
        row = {"prompt": training_text(example)[0], "target": example.target, "answer": example.answer}
        row |= {"metric": metric} if metric else {}
        row |= dict(zip(("before", "after"), example.around, strict=True)) if is_chat else {}
        rows.append(row)
    return rows
