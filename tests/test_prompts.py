"""The five-shot strings, the scorer, and the early stop that must never change a score."""

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from msft.data.example import Example, shot_text, shots_text, target_text, training_text
from msft.data.example import test_prompt as five_shot_prompt
from msft.data.scoring import decided, extract, score

PLAIN = Example("Pick one.\noptions: A. x, B. y", "#### B", "B")
REASONED = Example("1 + 1?", "One and one. #### 2", "2")


def test_training_text():
    assert training_text(PLAIN) == ("Q: Pick one.\noptions: A. x, B. y\nA: ", "#### B")
    assert training_text(REASONED) == ("Q: 1 + 1?\nA: ", "One and one. #### 2")
    assert target_text("B") == target_text("B", "") == "#### B"
    assert target_text("2", "One and one.") == "One and one. #### 2"


def test_only_plain_shots_end_in_a_dot():
    assert shot_text(PLAIN).endswith("A: #### B.")
    assert shot_text(REASONED).endswith("#### 2")
    assert shot_text(Example("q", "#### Mt. St.", "Mt. St.")).endswith("#### Mt. St.")


def test_shots_are_joined_by_one_newline_and_the_prompt_ends_in_a_space():
    class Sub:
        shots = [PLAIN] * 5

    assert shots_text(Sub.shots) == (shot_text(PLAIN) + "\n") * 5
    assert five_shot_prompt(Sub, REASONED) == "\n".join([shot_text(PLAIN)] * 5) + "\nQ: 1 + 1?\nA: "


@pytest.mark.parametrize(
    ("text", "answer", "right"),
    [
        ("#### C", "C", True),
        ("#### C.", "C", True),
        ("#### C...", "C", True),
        ("#### c", "C", True),
        ("####C", "C", True),
        ("####   C  ", "C", True),
        ("####\nC", "C", True),
        ("#### \n\n C.\nQ: next", "C", True),
        ("#### C\n#### D", "C", True),
        ("#### D\n#### C", "C", False),
        ("so #### C", "C", True),
        ("#### C because", "C", False),
        ("#### (C)", "C", False),
        ("##### C", "C", False),
        ("### C", "C", False),
        ("C", "C", True),
        (" C. ", "C", True),
        ("C\n", "C", True),
        ("The answer is C", "C", False),
        ("", "C", False),
        ("####", "C", False),
        ("#### ", "C", False),
        ("#### .", "C", False),
        ("#### 18", "18", True),
        ("#### 18.0", "18", True),
        ("#### 18.", "18", True),
        ("#### 18.00", "18.0", True),
        ("#### 1.8e1", "18", True),
        ("#### -18", "18", False),
        ("#### $18", "18", False),
        ("#### 18 apples", "18", False),
        ("#### 1,000", "1,000", True),
        ("#### 1000", "1,000", False),  # a comma is no Python float: compared as text
        ("#### 1,000", "1000", False),
        ("#### 72\nA: 3", "72", True),
        ("#### 12345678901234567", "12345678901234568", False),  # one float, two numbers
        ("#### 1e400", "1e500", False),
        ("#### 1e17", "100000000000000000", True),
        ("#### -inf", "-Infinity", True),
        ("#### TRUE", "True", True),
        ("#### true.", "True", True),
        ("#### Carbon Dioxide", "carbon dioxide", True),
        ("#### carbon  dioxide", "carbon dioxide", False),
        ("#### St. Blaise", "St. Blaise.", True),
        ("#### \u03a3", "\u03c3", True),
    ],
)
def test_score(text, answer, right):
    assert score(text, answer) is right


def test_extract_takes_the_first_mark_only():
    assert extract("a #### b\nc #### d") == "b"
    assert extract("no mark. ") == "no mark"


@pytest.mark.parametrize(
    ("text", "over"),
    [
        ("#### C\n", True),
        ("####C\n", True),
        ("####\n\nC\n", True),
        ("so #### 12.\nQ:", True),
        ("#### C", False),
        ("####\n", False),
        ("#### \n \n", False),
        ("C\n", False),
        ("### C\n", False),
        ("", False),
    ],
)
def test_decided(text, over):
    assert decided(text) is over


PIECES = ["#", "##", "####", " ", "\n", "\r", "\t", ".", "C", "18", "1.8e1", "\u2028", "\x1c", "\x85", "Q: "]
TEXTS = st.lists(st.sampled_from(PIECES) | st.text(max_size=3), max_size=12).map("".join)

SPACE = st.lists(st.sampled_from([" ", "\n", "\t", "\r", "\x1c", "\u2028"]), max_size=3).map("".join)
DECIDED = st.tuples(TEXTS, st.just("####"), SPACE, st.sampled_from("#.C1"), TEXTS, st.just("\n")).map("".join)


@settings(max_examples=500, deadline=None)
@given(DECIDED, TEXTS, st.sampled_from(["C", "18", "", "#", ".", "True"]) | st.text(max_size=4))
@example("#### C\n", "#### D", "D")
@example("#####\n", "#### 1\n", "1")
@example("####\n####\n", "x", "x")
def test_a_decided_score_never_changes(text, suffix, answer):
    assert decided(text)
    assert extract(text + suffix) == extract(text)
    assert score(text + suffix, answer) == score(text, answer)


@settings(max_examples=300, deadline=None)
@given(TEXTS | DECIDED, TEXTS)
def test_decided_stays_decided(text, suffix):
    assert not decided(text) or decided(text + suffix)


@settings(max_examples=200, deadline=None)
@given(st.text(), st.text())
def test_score_takes_any_text(text, answer):
    assert score(text, answer) in (True, False)


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet=st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]), min_size=1))
def test_the_gold_target_scores_as_right(answer):
    bare = answer.strip().rstrip(".").strip()
    assume(bare and "#" not in bare)
    assume(bare.lower().lstrip("+-") != "nan")  # the one number that does not equal itself
    assert score(target_text(answer), answer)
