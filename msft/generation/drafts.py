"""Drafts that go on: once a text has left its draft, what stood behind its newest tokens in a text that it may repeat.

Token ids stand as characters of a string: searching one is the fastest search that Python has.
"""

from collections.abc import Sequence

_LONGEST, _SHORTEST = 12, 3  # tokens of a match
_FIRST, _MOST = 1, 64  # tokens of a draft


class Repeats:
    """What a text may repeat: its own prompt and tokens, its gold answer, and its answer at the last decoding."""

    def __init__(self, prompt: Sequence[int], *texts: Sequence[int]):
        self._prompt = as_string(prompt)
        # the others begin behind the end of the prompt, so that a text's first tokens find their place in them
        self._texts = [self._prompt[-_LONGEST:] + as_string(text) for text in texts if text]
        self._most, self._least = _FIRST, _SHORTEST  # tokens of the next draft, and of the match before it
        self._is_sure = False

    def draft(self, out: Sequence[int], most: int, free: int = 0) -> list[int]:
        """At most `most` tokens that may come after the tokens `out`; none where nothing like them stood before.

        free: so many are tried after any match, since a step takes no longer for them.
        """
        written, behind, matched = self._prompt + as_string(out), "", 0
        for size in range(1 if free else self._least, _LONGEST + 1):
            longer = self._behind(written, written[-size:])
            if not longer:
                break
            behind, matched = longer, size
        self._is_sure = matched >= self._least
        return list(map(ord, behind[: min(most, max(free, self._most if self._is_sure else 0))]))

    def _behind(self, written: str, newest: str) -> str:
        """What stood behind the newest tokens of a text."""
        for text in self._texts:
            if behind := text.rpartition(newest)[2] if newest in text else "":
                return behind
        place = written.rfind(newest, 0, -1)
        # what comes again and again goes on with itself
        return written[place + len(newest) :] * _MOST if place >= 0 else ""

    def learn(self, tried: int, right: int) -> None:
        """Drafts get longer while they are right; where they are not, they get shorter and need longer matches."""
        if not self._is_sure:
            return
        if tried and right == tried:
            self._most, self._least = min(2 * tried, _MOST), _SHORTEST
        elif tried:
            self._most, self._least = max(1, right), min(2 * self._least, _LONGEST)


def as_string(ids: Sequence[int]) -> str:
    """Token ids as characters."""
    return "".join(map(chr, ids))
