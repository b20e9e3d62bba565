"""Reads and scores a generated answer. Stands alone: lm-eval loads a copy of it beside its task files."""

import json
import re
import unicodedata
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

_ANSWER = re.compile(r"####\s*(.*)")
# how reasoning models mark their thoughts
_THOUGHT_BEGIN = re.compile(r"<(?:\w+:)?(?:think|thinking|thought|reasoning)>|\[THINK\]")
THOUGHT_END = re.compile(r"</(?:\w+:)?(?:think|thinking|thought|reasoning)>|\[/THINK\]")
# once a line ends after some text behind the first ####, no later token can change the score
_DECIDED = re.compile(r"\A(?:(?!####).)*####\s*\S[^\n]*\n", re.DOTALL)

# what exact_match takes away around an answer: the end of a sentence behind a word, pairs of quotes, Markdown's stars,
# LaTeX around text, brackets around one word. '5!', '(0, 1]' and '} ]' stay as they are
_SENTENCE_END = re.compile(
    r"(?<=[\w)\]}%\"'])[.,;:]+$|(?<=[^。।])[。।]+$|(?<=[^\W\d_]{2})[.,;:!?]+$|(?<=[^\W\d_]['\"])[!?]+$"
)
_ALIKE = str.maketrans("‘’‚‛‹›“”„‟«»‐‑‒–", "'" * 6 + '"' * 6 + "-" * 4)  # quotes and hyphens of typesetters
_AROUND = re.compile(
    r"(?:([\"'`])([^\"'`]+)\1|\(([^\W\d_]+)\)|([^\W\d_])\)"
    r"|\*{1,3}([^\s*](?:[^*]*[^\s*])?)\*{1,3}|\$([^$]+)\$|\\[(\[]((?:(?!\\[()\[\]]).)+)\\[)\]]"
    r"|\\(?:text(?:bf|it|rm)?|boxed|mathrm|mathbf|underline|fbox)\{((?:[^{}]|\{[^{}]*\})+)\})"
)

# a number and all that hangs together with it without a blank: a date, a time, a range, a power or a root is then no
# number, rather than its last digits. Blanks stand only between thousands, before a fraction and around a power of ten.
# odd, tail: what stands before or behind it and makes it another number: a relation, 'x', 'k', 'pm', what it is divided by
_SCALES = {"hundred": 2, "thousand": 3, "lakh": 5, "lac": 5, "million": 6, "crore": 7, "billion": 9, "trillion": 12}
# beginnings of scales in other languages, which are not read
_FOREIGN = (
    r"tysi tys\b tisíc tusen tusind duizend ezer tuhat tuhan nghìn ngàn triệu tỷ\b tỉ\b juta ribu\b bin\b mii\b elfu\b tril[lijyh]"
    r" billionen billon bilh biljo χιλι (?:δισ)?εκατομμ тисяч мільй мільяр хиляд трил трлн हज\u093c?ार लाख करोड হাজার লাখ লক্ষ কোটি"
    r" هزار میلیون میلیارد ہزار لاکھ کروڑ ألف آلاف مليون ملايين مليار אלף אלפים מיליון מיליארד พัน(?!ธ) หมื่น แสน ล้าน"
).split()
_NUMBER = re.compile(
    r"(?P<odd>(?:[<>≠-≿⩽⩾±√∛∜|⌈⌊] ?|\\l(?:ceil|floor) ?|\b(?:log[_{}\d]*|ln|sin|cos|tan|exp|[bp]?mod) ?\(?|\w\(|[\^_]\{?|\\[a-z]+\{|\}\{"
    r"|(?<=[\w)\]}])[-+*/%]\(?"
    r"|(?<=\d) [-+*x:%] \(?|(?-i:(?<=\b[a-z])|(?<=\d[a-z])) [-+*] \(?){1,9})?"
    r"(?P<piece>(?:(?<![\w.)])[-+])?\$?(?P<root>[√∛∜|])?(?<!\w)(?<!\d[.,:])"
    r"(?:0[xbo][\da-f]+|\d+ \d+/\d+(?![\d/])"
    r"|(?:\d{1,3}(?: \d{3})+(?![\d/])(?:[.,]\d+)?|(?:(?<!\.)\.|(?<![^\s$(+-]),)?\d+(?:[.,:;/'_^-]+\d+)*)"
    r"(?:\.?e[-+]?\d+)?(?: ?[x*] ?10\^[-+]?\d+)?)"
    rf"(?:[ -]?(?:{'|'.join(_SCALES)})s?\b)*)"
    r"(?P<tail>/?[!|^π√\u0300-\u036f]+[\w.]*|\w?半|[打割]|成(?!\w)|[.,]\d[\w.]*| ?(?!千[克米瓦卡赫])(?:[百千万萬亿億兆백천억]|만(?!큼)|조(?!각))+[\w.]*|[^\W\d_]+(?![23](?!\w))\d\w*"
    r"|(?-i:/?(?:[abeijknoqrxyzBDEGIKMOPQRXYZ]|pi|x\d+))(?!\w)"
    r"| ?(?:bn|cr|ml[nd]|mn|tr?n|mio|mrd|mil|mille?|mill?[ijy]?[oóaáh]\w*|tsd|tausend|bil|dozens?|dutzend|docenas?|douzaines?|q[a-z]+illions?|мл[нр]\w*|милл\w*|тыс\w*"
    r"|squared|cubed|factorial|thirds|halves|(?:four|fif|six|seven|eigh|nin)ths|(?:ten|hundred|thousand|million|billion)ths?)\b"
    rf"| ?(?:{'|'.join(_FOREIGN)})\w*"
    r"|[-+](?![\w.])| ?(?:[ap]\.?m|b\.?c(?:\.?e)?)\b| and (?:an?|one|two|three) (?:hal[fv]|quarter|third|(?:four|fif|six|seven|eigh|nin|ten)th)\w*"
    r"|(?<=dred|sand|lion)[ -](?:and )?(?:(?:one|two|ten|eleven|twelve)\b|(?:twen|thir|three|fou?r|fi[fv]e?|six|seven|eight?|nine)(?:ty|teen)?\b)"
    r"| ?(?-i:[kKM]|Md|bn) ?(?-i:\$|USD|EUR|GBP|CHF|INR|CNY))?",
    re.IGNORECASE,
)
# (pattern, what it becomes, an example) before numbers are looked for: other ways to write a sign, a fraction, a relation
_SPELLINGS = [
    (r"[‐‑‒–➖˗]|^[—―](?=\d)", "-", "–5 → -5"),
    (r"\\(?:text(?:bf|it|rm)?|mathrm|mathbf|underline|fbox)\{([^{}]*)\}", r"\1", r"\text{5} km → 5 km"),
    (r"(?<=\d) *(?=\\[cdt]?frac)", " ", r"1\frac12 → 1 \frac12"),
    (r"\\[cdt]?frac *(?:\{ *(-?\d+) *\}|(\d)) *(?:\{ *(\d+) *\}|(\d))(?!\d)", r"\1\2/\3\4", r"\frac{1}{2} → 1/2"),
    (r"(?<=[\u0e00-\u0e7f\u3040-\u30ff\u4e00-\u9fff\uac00-\ud7a3])(?=[-+$.\d])", " ", "共5个 → 共 5个"),
    (r"</?[a-z]\w*/?>", " ", "<b>5</b> →  5 "),
    (r"\b_+([^_\s]+)_+\b", r"\1", "_5_ → 5"),
    (r"\\([$%])", r"\1", r"-\$5 → -$5"),
    (r"\\(?:left|right)(?![a-z])", "", r"\left(5\right) → (5)"),
    (r"\^\{?\\circ\}?", "", r"90^\circ → 90"),
    (r"(?<=\d)\*\*(?=[-+]?\d)", "^", "2**3 → 2^3"),
    (r" ?\^ ?[{(]?([-+]?\d+)[})]?", r"^\1", "10 ^ {3} → 10^3"),
    (r"(?<=\d)\{([.,])\}(?=\d)", r"\1", "0{,}5 → 0,5"),
    (r"(?<=\d)(?:,\\!|~|\\[ ,!:;])(?=\d{3})", ",", r"1\,000 → 1,000"),
    (r"\\(?:boxed|num|SI|qty)\{([^{}]*)\}", r"\1", r"\boxed{5} → 5"),
    # '($1,234)' of an account is below zero, and '(2,3)' are two
    (r"^\W*\( *(\$? ?\d{1,3}(?:,\d{3})+(?:\.\d+)?)\)", r"-\1", "($1,234) → -$1,234"),
    (r"(?<=[(\[{])(\d+),(?=\d+[)\]}])(?!\d{3}[)\]}])", r"\1;", "(2,3) → (2;3)"),
    (r"""-[({[*"'`]+ *(?=[$\d.])""", "-", "-(4) → -4)"),
    (r"\\pm(?![a-z])|\+ ?/? ?-(?=[$\d .])", "±", "+/-2 → ±2"),
    (r" ?(?:\\|\b)pi\b| π", "π", r"5 \pi → 5π"),
    (r"\\?\bsqrt *[{(]?", "√", r"\sqrt{2} → √2}"),
    (r"\\?<=|\\leq?\b|\\lt\b", "≤", r"\leq 5 → ≤ 5"),
    (r"\\?>=|\\geq?\b|\\gt\b", "≥", ">=5 → ≥5"),
    (r"!=|\\neq?\b", "≠", "!= 5 → ≠ 5"),
    (r"(?<![=-])[=-]+>", " ", "=>5 →  5"),
    (r"[×·⋅∙✕✖⨯]|\\(?:times|cdot)(?![a-z])", "*", "2×3 → 2*3"),
    ("’", "'", "1’000 → 1'000"),
    (r"(?<=[\w)\]}]) ?(?:[/÷]|\\over) ?[({]?(?=\d)", "/", "1 ÷ 2 → 1/2"),
    (r"(?<=\d)(?: +| *(?:and|&|\+) *)(?=\d+/\d)", " ", "1 and 1/2 → 1 1/2"),
    (r"\b(?:USD|EUR|GBP|CHF|JPY|INR|CNY|Rs\.?) ?(?=[-+.\d])", "$", "EUR 5 → $5"),
    (r"(?:\b[A-Z]{1,2})?(\$) *(?=[-+.\d])", r"\1", "US$ 5 → $5"),
    (r"(^|[=:(])\s*([-+]) +(?=[$.\d])", r"\1\2", "= - 5 → =-5"),
    (r"(?i)(?<!\d )\b(?:minus|negative) *(?=[$.\d])", "-", "minus 5 → -5"),
    (r"(\$\d[\d.,]*)(?:k| ?K)\b", r"\1 thousand", "$2k → $2 thousand"),
    (r"(\$\d[\d.,]*)(?:m| ?(?:MM?|mn|mln))\b", r"\1 million", "$1.2m → $1.2 million"),
    (r"(\$\d[\d.,]*)(?:b| ?(?:B|bn))\b", r"\1 billion", "$3bn → $3 billion"),
    (r"(\$\d[\d.,]*) ?(?:T|tr?n)\b", r"\1 trillion", "$5T → $5 trillion"),
    (r"(\d ?[A-Za-zµ/]{1,4})\^\{?-?\d+\}?", r"\1", "25 cm^2 → 25 cm"),
]
_REWRITES = [(re.compile(pattern), to) for pattern, to, _ in _SPELLINGS]
# a part that begins with 0 is of a date: 01/02
_FRACTION = re.compile(r"(?:(\d+) )?([1-9]\d*|0)/([1-9]\d*)")
_POWER_OF_TEN = re.compile(r"(?:[eE]|(?:(?<=\d) ?[x*] ?|^)10\^)([-+]?\d{1,3})$")
_PLAIN = re.compile(r"(\d*)(?:\.(\d*))?")
_GROUPED = re.compile(r"([1-9]\d{0,2}(?:([,.'_ ])\d{3})(?:\2\d{3})*|[1-9]\d?(?:,\d\d)+,\d{3})(?:([.,])(\d+))?")
_DECIMAL_COMMA = re.compile(r"(\d*),(\d+)")
_TOLERANCE = Fraction(1, 10**6)  # relative
_SIGNS = {0x2212: "-", 0xFF0D: "-", 0xFE63: "-", 0xFF0B: "+", 0xFF0E: "."}  # of numbers, as typesetters have them
# blanks, control characters, marks without a width, but for those that join letters: in some scripts they end words
_UNSEEN = "".join(c for c in map(chr, range(2**16)) if unicodedata.category(c) in ("Cc", "Cf", "Zs", "Zl", "Zp"))
_UNSEEN = _UNSEEN.replace("\u200c\u200d", "")
# of them and of emoji, what may stand within a word or behind a sign
_INSIDE = re.compile("[\u00ad\u200b\u200e\u200f\u202a-\u202e\u2060\u2066-\u2069\ufe0e\ufe0f\ufeff]")


def stripped(text: str) -> str:
    """A text without what nobody sees at its ends: blanks, control characters, marks without a width."""
    return text.strip(_UNSEEN)


def _bare(text: str) -> str:
    return stripped(stripped(text).rstrip("."))


def extract(text: str) -> str:
    """The answer in a generated text: what follows the first '####' on its line, or the whole text."""
    match = _ANSWER.search(text)
    return _bare(match.group(1) if match else text)


def thoughtless(text: str) -> str:
    """What a chat says behind its thought, nothing where that has no end; a text with '####' says its answer there."""
    if _ANSWER.search(text):
        return text
    *_, said = THOUGHT_END.split(text)
    return "" if said == text and _THOUGHT_BEGIN.search(text) else said


def lowered(text: str) -> str:
    """Text as the paper's scorer compares it: lower-cased; how letters are composed and how wide a blank is is not said."""
    return re.sub(r"\s", " ", unicodedata.normalize("NFC", text).lower())


def score(text: str, answer: str) -> bool:
    """Whether a generated text gives the gold answer: equal as numbers if both are, else as `lowered` texts."""
    if not (isinstance(text, str) and isinstance(answer, str)):
        raise TypeError(f"text and answer must be texts; found {text!r} and {answer!r}")
    said, gold = extract(text), _bare(answer)
    one, other = as_number(said), as_number(gold)
    is_text = isinstance(one, str) or isinstance(other, str)
    return lowered(said) == lowered(gold) if is_text else one == other


def as_number(text: str) -> float | Decimal | str:
    """The number that a whole text is to the paper's scorer, in any script's digits and with any minus; else the text."""
    plain = text.translate(_SIGNS)  # Python reads digits of any script
    try:
        value = float(plain)
        # where floats no longer tell whole numbers apart, the written numbers do
        return value if abs(value) < 2**53 else Decimal(plain)
    except (ValueError, ArithmeticError):  # no number, or an exponent beyond what can be written out
        return text


def _compatible(text: str) -> str:
    """NFKC, but for what it would merge: '10²' becomes '10^2', 'H₂' 'H_2' and '1½' '1 1/2'."""
    parts, before = [], ""
    for char in text:
        kind, _, form = unicodedata.decomposition(char).rpartition("> ")
        mark = {"<super": "^", "<sub": "_", "<fraction": " "}.get(kind, "")
        parts.append(mark if mark != before or mark == " " else "")
        parts.append(char)
        before = mark
    return unicodedata.normalize("NFKC", "".join(parts)).translate({0x2044: "/", 0x2212: "-", 0x66B: ".", 0x66C: ","})


def normalised(text: str) -> str:
    """Text as exact_match compares it: never empty where the text is not.

    NFKC without merging raised digits or fractions, case folded, white space as single blanks, quotes and hyphens of one
    kind, no soft hyphens and other marks that nobody sees; the end of a sentence behind a word, and quotes or brackets
    around a word, fall away.
    """
    text, before = " ".join(_compatible(_INSIDE.sub("", text) or text).casefold().translate(_ALIKE).split()), None
    while text != before:
        before = text
        text = _SENTENCE_END.sub("", text)
        if pair := _AROUND.fullmatch(text):
            text = next(filter(None, pair.groups()[1:])).strip() or text
    return text


def numbers(text: str) -> list[tuple[Fraction, int | None] | None]:
    """(value, decimals) of every number in a text, units left aside; None for what hangs together and is no number.

    decimals: written digits behind the point, negative for whole powers of ten; None for fractions, which are exact.
    """
    kinds = {"Sc": "$", "Cf": ""}  # any currency, and marks without a width
    text = "".join(kinds.get(unicodedata.category(c), str(unicodedata.decimal(c, c))) for c in _compatible(text))
    for pattern, to in _REWRITES:
        text = pattern.sub(to, text)
    matches = _NUMBER.finditer(text)
    return [None if m["odd"] or m["root"] or m["tail"] else _value(m["piece"]) for m in matches]


def _value(piece: str) -> tuple[Fraction, int | None] | None:
    if len(piece) > 1000:  # int() takes 4,300 digits at most
        return None
    sign, piece = (-1 if piece.startswith("-") else 1), re.sub(r"^[-+]?\$?", "", piece).lower()
    scales = re.findall("|".join(_SCALES), piece)
    scale, piece = sum(map(_SCALES.get, scales)), re.sub(f"[ -]?({'|'.join(_SCALES)})s?", "", piece)
    if match := _FRACTION.fullmatch(piece):
        whole, top, bottom = (int(part or 0) for part in match.groups())
        return sign * (whole + Fraction(top, bottom)) * 10**scale, None
    power = _POWER_OF_TEN.search(piece)
    exponent, piece = (int(power.group(1)), piece[: power.start()] or "1") if power else (0, piece)
    if match := _PLAIN.fullmatch(piece) or _DECIMAL_COMMA.fullmatch(piece):
        whole, part = match.groups(default="")
    if grouped := _GROUPED.fullmatch(piece):
        digits, between, point, behind = grouped.groups(default="")
        # '1.234' is a decimal; '1.234.567' and '1.234,5' are not
        if point != (between or ",") and (between != "." or point or digits.count(".") > 1):
            whole, part = re.sub(r"\D", "", digits), behind
        elif not match:
            return None
    elif not match:
        return None
    decimals = len(part) - exponent - scale
    return sign * int(whole + part) * Fraction(10) ** -decimals, decimals


def exact_match(text: str, answer: str) -> bool:
    """Whether the answer in a generated text is the gold one, both `normalised`."""
    return normalised(extract(text)) == normalised(_bare(answer))


def number_match(text: str, answer: str) -> bool:
    """Whether the last number of the answer in a generated text equals that of the gold one.

    Where one is written with fewer decimals, it may be the other one rounded or cut, if they differ by less than a
    millionth.
    """
    said, gold = ((numbers(part) or [None])[-1] for part in (extract(text), answer))
    if said is None or gold is None:
        return False
    (a, a_decimals), (b, b_decimals) = said, gold
    fewer = min((d for d in (a_decimals, b_decimals) if d is not None), default=None)
    if a == b or a_decimals == b_decimals:
        return a == b
    return abs(a - b) < Fraction(10) ** -fewer and abs(a - b) <= _TOLERANCE * max(abs(a), abs(b))


SCORERS = {"exact_match": exact_match, "number_match": number_match}


def decided(text: str) -> bool:
    """Whether the score of a text can no longer change, however it goes on (protocol: exact shortcut)."""
    return _DECIDED.search(text) is not None


def unwrapped(text: str, doc: dict) -> str:
    """A generated text without its thought and without what the chat template writes around an answer (`before` and
    `after`, which the documents of chats have)."""
    if doc.get("before") is None:
        return text
    prompt = doc["prompt"].rstrip()  # which may begin a thought
    opened = next((match[0] for match in _THOUGHT_BEGIN.finditer(prompt) if match.end() == len(prompt)), "")
    text, before, after = thoughtless(opened + text), doc["before"], doc["after"] or ""
    return extract(text).removeprefix(before).removesuffix(after) if before or after else text


def is_right(text: str, doc: dict) -> bool:
    """Whether a text gives the `answer` of a document, by the metric that it names, else by the paper's scorer."""
    return SCORERS.get(doc.get("metric"), score)(unwrapped(text, doc), doc["answer"])


def process_results(doc: dict, results: list[str]) -> dict:
    """lm-eval's hook: the metrics of one item."""
    return {"acc": float(is_right(results[0], doc))}


def dataset(file: str, **_) -> dict:
    """lm-eval's hook: the test documents of a task in a JSONL file beside this one.

    Read here, since `datasets` takes a path for a pattern in which '[', '*' and '$HOME' mean something.
    """
    from datasets import Dataset

    text = (Path(__file__).parent / file).read_text(encoding="utf-8")
    return {"test": Dataset.from_list([json.loads(line) for line in text.split("\n") if line])}
