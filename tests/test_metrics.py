"""Metrics of sub-datasets: what counts as right, held-out loss as a number of which higher is better, mSFT on it."""

import json
import math
import re
from fractions import Fraction

import helpers
import pytest
import torch
import yaml
from hypothesis import assume, given
from hypothesis import settings as settings_of
from hypothesis import strategies as st

import msft
from msft.data import metrics, scoring, tasks
from msft.data.example import Example, documents
from msft.errors import DataError
from msft.evaluation import Evaluator
from msft.loss.tokens import tokenize
from msft.results.summary import summary

OWN = {"learning_rate": 1e-2, "batch_size": 8, "precision": "fp32", "max_new_tokens": 4, "eval_batch_size": 8}


@pytest.mark.parametrize(
    ("text", "answer", "right"),
    [
        ("#### The  Red\tFox.", "the red fox", True),
        ("I think so. #### 'Red'!\nmore", "red", True),
        ("ﬁne", "FINE", True),  # NFKC
        *(
            (text, "co-operate ❤", True)
            for text in ("co-\u00adoperate ❤\ufe0f", "co\u200b-op\u2060erate \u200f❤\ufe0e")
        ),
        ("\ufe0f", "", False),
        ("می\u200cخواهم", "میخواهم", False),  # it parts letters
        ("Straße", "STRASSE", True),
        ("#### 红。", "红", True),
        ("#### हाँ।", "हाँ", True),
        *(
            (text, "A", True)
            for text in ("**A**", "*A*.", "A)", "(A)", r"\text{A}", r"$\boxed{A}$", r"\textbf{A}", "**'A'.**")
        ),
        *((text, "A", True) for text in (r"\(A\)", r"\[\boxed{A}\].", r"$\boxed{\text{A}}$", r"\boxed{\textbf{(A)}}")),
        *((text, "A", False) for text in (r"\(A\) or \(A\)", r"\boxed{A}{A}", r"\boxed{A", r"\(A", "[A]")),
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}", True),
        *((text, "A", False) for text in ("**A", "f(A", "A*A*A", "x) A)", "$A")),
        ("__init__", "init", False),
        ("2*3*4", "234", False),
        ("#### it’s", "it's", True),
        ("#### –5 to ‐3", "-5 to -3", True),
        *((text, "red", True) for text in ("“Red”.", "‘red’", "«red»", "„red“!", "‹Red›")),
        ("#### it’s", "its", False),
        ("#### 5’", "5", False),
        ("#### -5", "5", False),
        ("#### 5 %", "5%", False),
        ("red fox", "red", False),
        ("", "red", False),
    ],
)
def test_exact_match(text, answer, right):
    assert scoring.exact_match(text, answer) is right


NUMBERS = [
    ("12", 12),
    ("it costs $1,250.50 in all", Fraction("1250.5")),
    ("first 3, then 4 kg", 4),
    ("-7 °C", -7),
    *((f"about {text}", 1_200_000) for text in ("$1.2m", "$1.2 M", "€1.2mn", "US$1,200k", "$0.0012bn", "$1.2 million")),
    *((text, 5) for text in ("5 m", "$5 mph", "$5 kg", "$5 b. and more")),
    ("−7", -7),
    ("-$7", -7),
    ("x=+3e2", 300),
    (".5", Fraction(1, 2)),
    ("5.", 5),
    ("12,345,678", 12345678),
    ("12,34,567", 1234567),
    ("1 234 567", 1234567),
    ("1\u202f234,5", Fraction("1234.5")),
    ("1.234.567", 1234567),
    ("1.234,5", Fraction("1234.5")),
    ("1'234", 1234),
    ("1,2345", Fraction("1.2345")),
    ("0,125", Fraction(1, 8)),
    ("3/4", Fraction(3, 4)),
    ("3 / 4", Fraction(3, 4)),
    ("2 3/4 cups", Fraction(11, 4)),
    ("2¾", Fraction(11, 4)),
    ("-1 1/2", Fraction(-3, 2)),
    *((text, Fraction(3, 2)) for text in ("1 and 1/2", "1 & 1/2", "1 + 1/2", "1 and ½", "1  1/2")),
    *((text, Fraction(1, 3)) for text in ("1/2 and 1/3", "1/2 + 1/3")),
    (r"\frac{3}{4}", Fraction(3, 4)),
    ("1.6e-19 C", Fraction(16, 10**20)),
    ("1.6 × 10⁻¹⁹", Fraction(16, 10**20)),
    ("10^-3", Fraction(1, 1000)),
    *((text, 1_500_000) for text in ("1 500e3", "1 500 × 10³", "1.5∙10^6", "1.5✕10^{6}", "15.e5", "1 500,0E3")),
    *((text, Fraction(15, 10**8)) for text in ("1.5×10^{–7}", "15.e-8", "1 500e−10")),
    ("2.5 million", 2500000),
    ("٤٢", 42),
    ("25 cm2", 25),
    ("12th", 12),
    # a unit is left aside, also where it stands close or is a letter of the SI; so are the ends of ordinals and decades
    *(
        (text, 5)
        for text in ("5kg", "5 %", "5%", "5€", "5-year", "5 year", "5A", "5 A", "5V", "5C", "5s", "5h", "5g", "5th")
    ),
    ("1990s", 1990),
    # what hangs together and is no number: identifiers, ratios, expressions
    *((text, None) for text in ("5D", "5E", "5G", "5a", "5n", "5r", "5j", "5:3", "5 : 3", "5%3", "5 % 3", "n + 5")),
    ("2020-05", None),
    ("3-4", None),
    ("3–4", None),
    ("10:30", None),
    ("1/2/2020", None),
    ("10.0.0.1", None),
    ("2^10", None),
    ("√2", None),
    ("5!", None),
    (">5", None),
    ("1/0", None),
    ("0x1F", None),
    *(
        (text, None)
        for text in ("x>5", "x<5", "x <= 5", "<=5", r"x \geq 5", "n != 5", "5k", "5M", "5 bn", "2pi", "2 pi")
    ),
    *(
        (text, None)
        for text in (r"\sqrt{2}", r"2\sqrt{3}", "2√3", "sqrt(2)", "x^5", "e^5", "x^{5}", "3i", "3+4i", "5x")
    ),
    *((text, None) for text in ("log 2", "ln(2)", "f(2)", "sin 30", "7 mod 12", "1;2", r"\frac{x}{2}")),
    # signs, fractions, units and scales in other spellings
    *((text, -5) for text in ("- 5", "-$ 5", "-US$5", "$-5", "minus 5", "Negative 5", "it is minus $5", "x = - 5")),
    *((text, Fraction(-1, 2)) for text in (r"-\frac{1}{2}", r"\frac{-1}{2}", "-½")),
    *((text, Fraction(3, 2)) for text in ("1 ½", "1½", r"1\frac{1}{2}", r"1 \dfrac{1}{2}")),
    ("3 hundred thousand", 300000),
    ("3 minus 5", 5),
    ("US$ 5", 5),
    *((text, 5) for text in (r"\boxed{5}", r"\textbf{5}", r"\underline{5}")),
    # as LaTeX has them
    *((text, Fraction(1, 2)) for text in (r"\boxed{\frac{1}{2}}", r"\frac12", r"\boxed{\dfrac{1}{2}}")),
    (r"3\frac12", Fraction(7, 2)),
    *((text, 90) for text in (r"90^\circ", r"90^{\circ}", r"\boxed{\text{90 cm}}", r"90\text{ cm}^{2}")),
    *((text, 12345) for text in (r"12{,}345", r"12,\!345", r"12\,345", r"\boxed{12,345}")),
    *((text, Fraction(16, 10**20)) for text in (r"1.6 \times 10^{-19}", r"1.6\cdot10^{-19} C")),
    *((text, None) for text in (r"2^{10}", r"\boxed{2^{10}}", r"\frac{\sqrt2}{2}", r"\frac{\pi}{2}")),
    (r"\text{5} apples", 5),
    ("25 cm²", 25),
    ("9.8 m/s^2", Fraction("9.8")),
    ("=> 5", 5),
    ("5 K", 5),
    ("5 kg", 5),
    ("5m", 5),
    ("5'3", None),
    ("9" * 5000, None),
    # accounts, pairs, and signs before brackets
    *((text, -1234) for text in ("(1,234)", "$(1,234)", "($ 1,234)", "-(1,234)", "**(1,234)**")),
    ("($1,234.50) million", Fraction("-1234.5") * 10**6),
    ("1234 (1,234)", 1234),
    *((text, -4) for text in ("-(4)", "−(4)", "-( 4 )", "-₹4", "₹-4", "-\u200e4")),
    *((text, None) for text in ("(2,3)", "[2,5]", "{1,20}", "+/-2", "+-2", r"\pm 2", r"\pm2")),
    # what is divided, added, a power or a base
    *((text, None) for text in ("3π/2", "π/2", r"\pi/2", r"5\pi", r"5 \pi", "5 π", "x/2", "(3+4)/2", "(3 + 4) / 2")),
    *((text, None) for text in ("3+4", "2n+1", "n-1", "3*4", "3x4", "1920x1080", "2**3", "2 ^ 10", "101_{2}", "a_{5}")),
    *((text, None) for text in (r"\log_2 8", r"\pmod 7", "log_10(8)", "5 mln", "5 tn")),
    *((text, 2000) for text in ("2 * 10 ^ 3", "2*10^(3)", "2*10**3", r"2\times10^{3}")),
    # in currencies and scales
    *((text, 5000) for text in ("USD5,000", "EUR5.000,00", "Rs.5000", "Rs5000", "₹5,000")),
    *((text, 500000) for text in ("5 lakh", "5,00,000", "5 hundred thousands")),
    ("5 millions", 5 * 10**6),
    # as other scripts, markup and LaTeX have them
    *((text, 5) for text in ("答案是5。", "共5个", "答えは5です", "답은5", "คือ5")),
    ("答案是-5", -5),
    *(
        (text, None)
        for text in ("5万", "5億円", "3千", "5 万", "5 mio", "5 Mrd", "3 Tsd.", "5 млн", "5 milliards", "∛8")
    ),
    *((text, None) for text in ("10h30", "1m80", "5m30s", "2d4h", "3of5", "5-", "1,234-", "١٢-")),
    *((text, 5) for text in ("5m2", "5cm3", "5kg/m3", "5th", "5.-")),
    *(
        (text, -5)
        for text in (r"-\$5", "-EUR 5", "-R$5", "-A$5", "-Rs. 5", r"minus\$5", "-**5**", '-"5"', "-[5]", "‒5", "—5")
    ),
    ("٣٫١٤", Fraction("3.14")),
    ("١٬٢٣٤", 1234),
    ("1\u200b000", 1000),
    *((text, 5) for text in ("<b>5</b>", "<answer>5</answer>", "_5_", "__5__", "<br/>5", r"\num{5}", r"\SI{5}{m}")),
    *(
        (text, Fraction(1, 2))
        for text in ("0{,}5", "1/(2)", "1/{2}", "1÷2", r"{1 \over 2}", r"\frac{ 1 }{ 2 }", r"\frac 12")
    ),
    *((text, Fraction(1, 2)) for text in (r"\frac1{2}", r"\frac{1}2", r"\cfrac{1}{2}", r"\frac 1 2")),
    *((text, 1000) for text in (r"1\ 000", "1~000")),
    # relations, what a number is a part of, and scales, in more words and signs
    *(
        (text, None)
        for text in ("≪2", "≫2", "⩾2", "≦2", "≧ 2", "≲2", "65+", "2+ years", "3/x", "5/pi", "44 BC", "44 b.c.e.")
    ),
    *(
        (text, None)
        for text in ("5 squared", "2 cubed", "5 tenths", "3 hundredths", "1 millionth", "1e1.5", "1.5×10^2.5")
    ),
    *(
        (text, None)
        for text in ("5 mil", "5 mille", "5 mila", "2 milhões", "5 Millionen", "2,5 Milliarden", "5 miljoner")
    ),
    *(
        (text, None)
        for text in ("5만", "5만원", "5억", "2백만", "5조", "5兆", "5ล้านบาท", "5 หมื่น", "5 लाख", "5 करोड़", "5 हज़ार")
    ),
    *(
        (text, None)
        for text in ("5 কোটি", "5 آلاف", "٥ ملايين", "5 هزار", "5 میلیون", "5 אלף", "5 nghìn", "5 tỷ", "5 juta")
    ),
    *(
        (text, None)
        for text in ("5 bin", "5 tys.", "5 tisíc", "5 tusen", "5 millió", "5 bilhões", "5 Billionen", "5 тисяч")
    ),
    *(
        (text, 5)
        for text in ("5千克", "5千米", "5조각", "5만큼", "5개", "5 พันธุ์", "5 میلی‌متر", "5 tỉnh", "5 bins", "5 binders")
    ),
    *((text, None) for text in ("5 тысяч", "5 миллионов", "5 млрд.", "₹5 cr", "5 tausend")),
    *(
        (text, 5)
        for text in ("5 miles", "5 millimeters", "5 mg", "5 milliliters", "5/kg", "5 AD", "so ...5", r"\left(5\right)")
    ),
    *((text, 5 * 10**12) for text in ("$5T", "$5 T", "$5tn", "5 trillion")),
    # scales before a currency, in words behind a number, and joined to it; a mark above a digit repeats it
    *((text, None) for text in ("5 M€", "5 k€", "5 Md €", "5 M$", "5 MEUR", "5 k USD", "5 bil", "3 dozens")),
    *((text, None) for text in ("2 quintillions", "2 and a third", "2 and two thirds", "3 Dutzend", "3个半", "3半")),
    *((text, None) for text in ("2 thousand five hundred", "3 hundred and five", "3 million forty", "3打", "3割")),
    *((text, None) for text in ("⌊5.5⌋", "⌈ 5.5 ⌉", r"\lfloor 5.5 \rfloor", r"\lceil 5.5 \rceil", "3割引", "3成")),
    *((text, None) for text in ("1 hundred eighteen", "0.3\u0305")),
    *((text, 300) for text in ("3 hundred pretty cats", "3 hundred thirsty men", "3 hundred and more")),
    *((text, 5 * 10**6) for text in ("5-million", "$5-million", "$5MM", "5 million")),
    *((text, 2) for text in ("2 and two cats", "2 K", "2 MM")),
    ("5 lac", 500000),
    # a date is no fraction; a decimal may begin with its point or comma
    *((text, None) for text in ("01/02", "2020/01", "1/05")),
    *((text, 0) for text in ("0/5", "0")),
    *((text, Fraction(1, 2)) for text in (",5", "€,5", "x = ,5", "10/20")),
    ("-,5", Fraction(-1, 2)),
]


@pytest.mark.parametrize(("text", "value"), NUMBERS)
def test_the_last_number_of_a_text(text, value):
    last = scoring.numbers(text)[-1]
    assert (None if last is None else last[0]) == value


@pytest.mark.parametrize(("pattern", "to", "example"), scoring._SPELLINGS)
def test_each_spelling_becomes_what_its_example_says(pattern, to, example):
    seen, _, becomes = example.partition(" → ")
    assert re.sub(pattern, to, seen) == becomes != seen


@pytest.mark.parametrize("text", ["none", "", "H2O", "?!", "e10", "v1.2", "v5", "V5", "A5", "ABC1,234", "Q3:5"])
def test_a_text_without_a_number(text):
    assert scoring.numbers(text) == []


@pytest.mark.parametrize(
    ("text", "answer", "right"),
    [
        ("2 + 2 #### 4 apples", "4", True),
        ("#### 1,250", "1250.0 kg", True),
        ("so it is 3 and then 5", "5", True),
        ("#### 0.3333333333", "0.33333333333", True),
        ("#### 0.3333333", "1/3", True),
        ("#### 0.6666666", "2/3", True),  # cut, not rounded
        ("#### 0.3333", "0.33333333333", False),
        ("#### 0.30000000000000004", "0.3", True),
        ("#### 0.0000000000001", "0", False),
        ("#### 1000001", "1000002", False),
        ("#### 1234567.88", "1234567.89", False),
        ("#### 3 million", "3", False),
        ("#### none", "4", False),
        ("#### 4\n5", "4", True),
        ("#### 5", "- 5", False),
        ("#### 2√3", "3", False),
        ("#### 1 ½", "1/2", False),
        ("#### 5000", "5k", False),
        ("#### 7 am", "7 p.m.", False),
        ("#### 3", "3 dozen", False),
        ("#### 2", "2 and a half", False),
        ("#### 4 and a hand of 6 ppm", "6", True),
        *(
            (f"#### {text}", "3", False)
            for text in ("10 - 3", "5 + 3", "5 * 3", "5 × -3", "2 – 3", "3 fifths", "9 + $3")
        ),
        *(
            (f"#### {text}", "3", False)
            for text in ("5 : 3", "5 x 3", "5 % 3", "x + 3", "2n * 3", "5a - (3", "3n", "3D", "3/n")
        ),
        ("#### Room 5G", "Room 5H", False),
        *(
            (f"#### {text}", "3", True)
            for text in ("Step 5: 3", "1% 3%", "C + 3", "plan b: 3", "5 = 3", "90 s - 3 s = 3 s")
        ),
        *((f"#### {text}", "3", True) for text in ("5 - 2 = 3", "sum - 3", "1. - 3", "5 and 3", "3 thirsty men")),
    ],
)
def test_number_match(text, answer, right):
    assert scoring.number_match(text, answer) is right


@pytest.mark.parametrize("said", ["-5", "−5", "－５", "-5.0", "-٥", "－5．0", "−5e0"])
def test_the_papers_scorer_reads_the_signs_and_digits_of_typesetters(said):
    assert all(scoring.score(*pair) for pair in ((f"#### {said}", "-5"), ("#### -5", said)))
    assert not scoring.score(f"#### {said}", "5")


@pytest.mark.parametrize("pair", [("10²", "102"), ("①", "1"), ("½", "1/2"), ("5–7", "5-7"), ("−", "-"), ("a−b", "a-b")])
def test_the_papers_scorer_takes_no_other_sign_for_a_number(pair):
    assert not scoring.score(*pair)


def test_what_is_no_text_is_named():
    with pytest.raises(TypeError, match="text and answer must be texts; found None and '5'"):
        msft.score(None, "5")
    with pytest.raises(TypeError, match="give an example, such as mixture.'name'..train.0.; found 'x'"):
        msft.training_text("x")
    for other in ("x", None, msft.load_mixture("tiny")):
        with pytest.raises(TypeError, match="give a sub-dataset first, such as mixture.'name'.; found "):
            msft.test_prompt(other, Example("?", "#### 5", "5"))
    for configs in ("x", msft.RunConfig(), [None]):
        with pytest.raises(msft.errors.ConfigError, match=r"is no list of RunConfigs: give \[msft.RunConfig"):
            msft.plan(configs)


@pytest.mark.parametrize("metric", ["", *scoring.SCORERS])
@pytest.mark.parametrize("mark", ["\u200b", "\ufeff", "\u00ad", "\u200e", "\x00", "\u200b. \u2060"])
def test_what_nobody_sees_at_the_ends_of_an_answer_does_not_count(metric, mark):
    for text, gold in ((f"#### 4{mark}", "4"), ("#### 4.", f"{mark}4{mark}" if "." not in mark else f"4{mark}")):
        assert scoring.is_right(text, {"answer": gold, "metric": metric})
    assert scoring.extract(f"#### {mark}\n5") == ""
    assert not scoring.score("#### അവന്\u200d", "അവന്")  # a mark that joins letters is a part of its word


def test_numbers_beyond_what_can_be_written_out_are_no_error():
    assert scoring.score("#### 1e99999999999999999999", "inf") is False
    assert scoring.score("#### 1E99999999999999999999", "1e99999999999999999999") is True


@st.composite
def written(draw):
    """(a number as people write it, its value)."""
    whole = draw(st.integers(0, 10**9))
    decimals = draw(st.text("0123456789", max_size=4))
    group, point = draw(st.sampled_from([("", "."), (",", "."), (" ", "."), ("'", "."), (" ", ","), (".", ",")]))
    if group == "." and not decimals and whole < 10**6:
        group = ""  # '1.234' is a decimal
    assume(point == "." or len(decimals) != 3 or whole == 0 or whole >= 1000 and group)  # '1,000' is a thousand
    text = f"{whole:,}".replace(",", group) + (point + decimals if decimals else "")
    value = Fraction(f"{whole}.{decimals or 0}")
    kind = draw(st.sampled_from(["plain", "power", "fraction"]))
    if kind == "power":
        power = draw(st.integers(-20, 20))
        return f"{whole}e{power}", whole * Fraction(10) ** power
    if kind == "fraction":
        top, bottom = draw(st.integers(0, 99)), draw(st.integers(1, 99))
        mixed = draw(st.booleans())
        return (f"{whole} " if mixed else "") + f"{top}/{bottom}", Fraction(top, bottom) + (whole if mixed else 0)
    sign = draw(st.sampled_from(["", "-", "−", "+"]))
    return sign + text, -value if sign in ("-", "−") else value


@settings_of(max_examples=300, deadline=None)
@given(written(), written(), st.sampled_from(["", " kg", "%", "."]))
def test_only_the_gold_number_is_right(one, other, unit):
    (text, value), (gold, wanted) = one, other
    assert scoring.numbers(text + unit)[-1][0] == value
    right = scoring.number_match(f"#### {text}{unit}", gold)
    near = abs(value - wanted) <= max(abs(value), abs(wanted)) / 10**6
    assert right or value != wanted
    assert near or not right


GOLDS = ["}", "]", "} ]", ") )", "(0, 1]", "[0, 1)", "(0, 1)", "5!", "5", ".5", "-5", "5'", "10²", "102", "1½", "11/2"]
GOLDS += ["n!", "n", "C#", "C", "C++", "?", "!", "''", "[a]", "a", "H₂", "H2", "{x}", "x", "<b>", "b", "5:", "a.b"]


@pytest.mark.parametrize("gold", GOLDS)
def test_exact_match_takes_no_other_gold_and_no_empty_answer(gold):
    others = [other for other in GOLDS if scoring.exact_match(f"#### {other}", gold)]
    assert others == [gold] or set(others) == {"5", "5:"}
    assert not scoring.exact_match("", gold)
    assert not scoring.exact_match("#### ", gold)


@settings_of(max_examples=300, deadline=None)
@given(st.text(max_size=12))
def test_normalising_leaves_something_and_is_done_at_once(text):
    plain = scoring.normalised(text)
    assert bool(plain) == bool(text.strip())
    assert scoring.normalised(plain) == plain


def test_what_is_decided_stays_so_under_every_metric():
    """Decoding stops where the paper's score is decided: whatever follows may not change another metric's either."""
    for start in ("#### 4 kg\n", "2 #### Red.\n"):
        assert scoring.decided(start)
        for scorer in scoring.SCORERS.values():
            for answer in ("4", "red", "5"):
                assert scorer(start, answer) is scorer(start + "5 #### red", answer)


@pytest.mark.parametrize("metric", ["", *scoring.SCORERS])
def test_what_a_chat_thinks_before_its_answer_is_not_scored(metric):
    (chat,) = documents([Example("1?", "4", "4", messages=(("user", "1?"), ("assistant", "4")))], metric)
    (plain,) = documents([Example("1?", "#### 4", "4")], metric)
    for text in ("<think>\nhm, 7?\n</think>\n\n4", "perhaps 7</think>4."):
        assert scoring.is_right(text, chat)
        assert not scoring.is_right(text, chat | {"answer": "7"})
    for name in ("thinking", "thought", "reasoning", "seed:think"):
        assert scoring.is_right(f"<{name}>\nhm, 7?\n</{name}>\n4", chat) and not scoring.is_right(f"<{name}>4", chat)
    assert scoring.is_right("[THINK]7?[/THINK]4", chat) and scoring.is_right(
        "7?[/THINK]4", chat | {"prompt": "[/INST][THINK]"}
    )
    assert scoring.is_right("7</think>\n#### 4", chat) and scoring.is_right("7</think>\n#### 4", plain)
    assert not scoring.is_right("<think>4</think>", chat)
    assert not scoring.is_right("<think>\n3 + 1 = 4", chat)  # it was cut off
    opened = chat | {"prompt": "<|im_start|>assistant\n<think>\n"}  # by the chat template's generation prompt
    assert not scoring.is_right("3 + 1 = 4", opened)
    assert scoring.is_right("3 + 1?\n</think>\n\n4", opened) and scoring.is_right("3 + 1\n#### 4", opened)
    # elsewhere the whole text counts, as the paper's scorer has it; the last number of it is no other
    assert scoring.is_right("perhaps 7</think>\n4", plain) == (metric == "number_match")


def test_a_mean_loss_is_over_tokens():
    # two examples: tokens of 1/2 and 1/2, and one of 1/8
    found = metrics.token_mean([math.log(2), math.log(8)], [2, 1])
    assert math.exp(-found) == pytest.approx((1 / 2 * 1 / 2 * 1 / 8) ** (1 / 3))


# in a mixture ---------------------------------------------------------------------------------------------------


def note(i):
    return {"question": f"Tell {i}.", "answer": f"line {i}\n\nand #### another, naïve {i % 3}"}


def adding(i):
    return {"question": f"{i} + 1?", "answer": f"{i + 1}", "rationale": "and one."}


def write(folder, metric_of, makers, train=24, test=6, **more):
    entries = []
    for name, make in makers.items():
        entry = {"name": name, "train": f"{name}_train.jsonl", "test": f"{name}_test.jsonl"} | more.get(name, {})
        entries.append(entry | ({"metric": metric_of[name]} if name in metric_of else {}))
        for part, numbers in (("train", range(train)), ("test", range(100, 100 + test))):
            text = "".join(json.dumps(make(i)) + "\n" for i in numbers)
            (folder / f"{name}_{part}.jsonl").write_text(text, encoding="utf-8")
    (folder / "mine.yaml").write_text(yaml.safe_dump({"name": "mine", "sub_datasets": entries}))
    return folder / "mine.yaml"


@pytest.fixture
def mine(tmp_path):
    """Free text measured by its loss, and sums by their number."""
    return write(tmp_path, {"notes": "loss", "adding": "number_match"}, {"notes": note, "adding": adding})


def test_a_metric_is_read_and_free_text_needs_no_answer_of_one_line(mine):
    mixture = msft.load_mixture(mine)
    assert [sub.metric for sub in mixture] == ["loss", "number_match"]
    assert (len(mixture["notes"].shots), len(mixture["notes"].train)) == (0, 24)
    assert (len(mixture["adding"].shots), len(mixture["adding"].train)) == (5, 19)
    assert mixture["notes"].train[0].target == "#### line 0\n\nand #### another, naïve 0"


def test_a_metric_changes_the_fingerprint_and_its_absence_does_not(tmp_path):
    plain = msft.load_mixture(write(tmp_path, {}, {"adding": adding}))
    named = msft.load_mixture(write(tmp_path, {"adding": "exact_match"}, {"adding": adding}))
    assert plain.fingerprint() != named.fingerprint()
    assert plain["adding"].metric == ""


def test_the_fingerprint_of_a_mixture_without_metrics_is_what_it_was():
    """A digest over question, target and answer alone, as finished runs carry it in their names."""
    import hashlib

    mixture, digest = msft.load_mixture("tiny-smoke"), hashlib.sha256()
    for sub in mixture:
        for part in ("train", "test", "validation", "shots", "confirmation"):
            digest.update(f"\x00{sub.name}\x00{part}\x00".encode())
            for example in getattr(sub, part):
                digest.update(json.dumps([example.question, example.target, example.answer]).encode())
    assert mixture.fingerprint() == digest.hexdigest()


def test_bad_metrics_and_rows_are_told_at_once(tmp_path):
    makers = {"a": adding, "b": lambda i: {"question": f"{i}?", "answer": "many"}}
    with pytest.raises(DataError) as caught:
        msft.load_mixture(write(tmp_path, {"a": "exact", "b": "los"}, makers))
    text = str(caught.value)
    assert "unknown metric 'exact'. Did you mean 'exact_match'" in text
    assert "unknown metric 'los'. Did you mean 'loss'? Allowed: exact_match, number_match, loss." in text
    with pytest.raises(DataError) as caught:
        msft.load_mixture(write(tmp_path, {"b": "number_match"}, makers, train=3, test=2))
    lines = [line for line in str(caught.value).splitlines() if "the answer 'many' has none" in line]
    assert len(lines) == 5
    assert "b_train.jsonl:1:" in lines[0]


def test_shots_of_a_set_measured_by_its_loss_are_an_error(tmp_path):
    more = {"notes": {"shots": "notes_test.jsonl"}}
    with pytest.raises(DataError, match="measured zero-shot"):
        msft.load_mixture(write(tmp_path, {"notes": "loss"}, {"notes": note}, **more))


def test_the_held_out_loss_is_transformers_own(mine):
    """exp(-loss) with Hugging Face's loss on the same tokens, prompt tokens masked, over all of the set at once."""
    mixture, tokenizer, model = msft.load_mixture(mine), helpers.make_tokenizer(), helpers.make_model()
    scores = Evaluator(model.train(), tokenizer, mixture, "test", 4, 4).evaluate()
    assert list(scores) == ["notes", "adding"]
    assert model.training
    rows = tokenize(tokenizer, mixture["notes"].test)
    longest = max(len(row.ids) for row in rows)
    ids, labels = torch.zeros(len(rows), longest, dtype=torch.long), torch.full((len(rows), longest), -100)
    for i, row in enumerate(rows):
        ids[i, : len(row.ids)] = torch.tensor(row.ids)
        labels[i, row.start : len(row.ids)] = torch.tensor(row.ids[row.start :])
    with torch.no_grad():
        loss = model.eval()(input_ids=ids, attention_mask=(ids != 0).long(), labels=labels).loss.item()
    found = scores["notes"]
    assert -math.log(found.accuracy) == pytest.approx(loss, abs=1e-6)
    assert (found.n, found.outputs) == (6, [""] * 6)
    assert found.tokens == sum(len(row.ids) for row in rows)
    for row, each in zip(rows, found.correct, strict=True):
        one, wanted = torch.tensor([row.ids]), torch.tensor([row.ids]).clone()
        wanted[0, : row.start] = -100
        with torch.no_grad():
            assert -math.log(each) == pytest.approx(model(input_ids=one, labels=wanted).loss.item(), abs=1e-5)


def test_task_files_name_the_metric_and_leave_the_loss_out(mine, tmp_path):
    from lm_eval.tasks import TaskManager, get_task_dict

    folder = tmp_path / "tasks"
    tasks.write_tasks(folder, msft.load_mixture(mine), 8)
    text = (folder / f"{tasks.GROUP}.yaml").read_text()
    assert text.startswith('# no task, since their metric is held-out loss: ["notes"]\n')
    assert yaml.safe_load(text)["task"] == ["msft_task_adding"]
    assert not (folder / "msft_task_notes.yaml").exists()
    task = get_task_dict(["msft_task_adding"], TaskManager(include_path=str(folder), include_defaults=False))
    doc = next(iter(task["msft_task_adding"].test_docs()))
    assert doc["metric"] == "number_match"
    assert scoring.process_results(doc, ["it is 101 apples"]) == {"acc": 1.0}
    assert scoring.process_results({"answer": "101"}, ["it is 101 apples"]) == {"acc": 0.0}


def settings(folder, mixture, method, **params):
    tokenizer = helpers.make_tokenizer()
    helpers.make_model().save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    return msft.RunConfig(
        method=method, model=str(folder / "model"), mixture=str(mixture), params=params, device="cpu", **OWN
    )


def test_msft_drops_a_set_at_its_lowest_held_out_loss(tmp_path):
    """Free text alone: its peak is the point of the lowest loss, which the stock model finds in the checkpoint."""
    path = write(tmp_path, {"notes": "loss"}, {"notes": note}, train=8)
    run = msft.run(settings(tmp_path, path, "msft", budget=3.0, max_stages=8), tmp_path / "runs", progress=False)
    history = run.history
    assert list(history.columns)[-1] == "metric"
    assert set(history.metric) == {"loss"}
    back = [entry["arguments"] for entry in run.journal if entry["kind"] == "roll_back"]
    assert [each["dropped"] for each in back] == ["notes"]
    curve = history[history.stage == back[0]["stage"]].set_index("epoch").accuracy
    assert back[0]["epoch"] == curve.idxmax() < curve.index[-1]
    assert run.best.accuracy == history.accuracy.max()
    assert "notes: token probability, exp(-loss), in %" in summary(run)
    from msft.names import load_model, load_tokenizer

    best = str(run.best.path)
    scores = Evaluator(load_model(best, "fp32"), load_tokenizer(best), msft.load_mixture(path), "test", 4, 4).evaluate()
    assert scores["notes"].accuracy == pytest.approx(run.best.accuracy, abs=1e-7)
    assert (run.directory / "history.csv").read_text().splitlines()[0].endswith(",metric")


def test_a_run_without_metrics_has_the_columns_it_had(small_run):
    assert "metric" not in small_run.history.columns
    assert set(small_run.metrics.values()) == {""}


def test_a_question_s_example_may_be_checked_alone():
    metrics.check_example(Example("q", "#### two\nlines", "two\nlines"), "loss")
    with pytest.raises(DataError, match="scored as wrong"):
        metrics.check_example(Example("q", "#### two\nlines", "two\nlines"), "exact_match")
