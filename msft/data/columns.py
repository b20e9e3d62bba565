"""Which columns of one's own data are the question, the answer or the messages: said in the mixture, never guessed.

hub: owner/name                 # train, test and so on then name splits; `split` is another word for `train`
config: main                    # its subset;  revision: a branch, tag or commit
format: alpaca                  # instruction, input, output; sharegpt: conversations; openai: messages
columns: {answer: output}       # {ours: theirs}; ours are question, answer, rationale, messages
template: "{context}\n{query}"  # the question out of several columns; an empty cell leaves nothing
test_split: 0.1                 # a seeded share of train's questions; also validation_split
train_size: 2000                # seeded draw of as many rows; also test_size, validation_size
skip_bad_rows: true             # rows that cannot be used are left out and counted
"""

import string
from collections.abc import Mapping
from dataclasses import dataclass, fields

from msft.data.files import Rows
from msft.data.keys import QUESTION_KEYS, ROW_KEYS
from msft.errors import DataError, nearest, unknown
from msft.settings import check_values, setting

OURS = (*QUESTION_KEYS, *ROW_KEYS)
FORMATS = {"alpaca": ("instruction", "output"), "sharegpt": ("conversations",), "openai": ("messages",)}
_ALPACA = ({"answer": "output"}, "{instruction}\n{input}")  # columns and template
_TURN, _ROLES = {"from": "role", "value": "content"}, {"human": "user", "gpt": "assistant"}  # of ShareGPT
_SHARE = {"low": 0.0, "high": 1.0}


@dataclass(frozen=True)
class Source:
    """What an entry of a mixture may say of its rows beside its files."""

    hub: str | None = setting(None, "data set on the hub, owner/name")
    config: str | None = setting(None, "its subset")
    split: str | None = setting(None, "its split to train on")
    revision: str | None = setting(None, "its branch, tag or commit")
    format: str | None = setting(None, "the shape of a row", choices=tuple(FORMATS))
    columns: dict = setting({}, "{ours: theirs}")
    template: str | None = setting(None, "the question, columns in braces")
    train_size: int | None = setting(None, "rows to draw", low=1)
    test_size: int | None = setting(None, "rows to draw", low=1)
    validation_size: int | None = setting(None, "rows to draw", low=1)
    test_split: float | None = setting(None, "share of train's questions", **_SHARE)
    validation_split: float | None = setting(None, "share of train's questions", **_SHARE)
    skip_bad_rows: bool = setting(False, "whether rows that cannot be used are left out")

    def columns_of(self) -> tuple[dict[str, str], list[str]]:
        """({ours: theirs} of what is read as it stands, the columns that the template joins)."""
        columns, template = _ALPACA if self.format == "alpaca" else (self.columns, self.template)
        if not columns and not template:
            return {}, []
        joined = [name for _, name, *_ in string.Formatter().parse(template or "") if name is not None]
        plain = () if self.format else ROW_KEYS if "messages" in columns else QUESTION_KEYS
        kept = {ours: ours for ours in plain if not (template and ours == "question")}
        return kept | columns, joined

    def missing(self, found: Rows) -> str:
        """What is wrong with the names of the columns, or ''."""
        columns, joined = self.columns_of()
        needed = FORMATS.get(self.format) or [*(name for ours, name in columns.items() if ours != "rationale"), *joined]
        mend = ""
        if not needed and found.is_table and "messages" not in found.columns:
            needed = QUESTION_KEYS[:2]
            mend = f" Say under `columns` which they are, or name a `format`: {', '.join(FORMATS)}."
        needed = [*needed, *([self.columns["rationale"]] if "rationale" in self.columns else [])]
        absent = [
            f"{name!r}.{nearest(name, found.columns)}" for name in dict.fromkeys(needed) if name not in found.columns
        ]
        return f"no column {' No column '.join(absent)} It has: {', '.join(found.columns)}.{mend}" if absent else ""

    def shaped(self, row: dict) -> tuple[dict, set[str]]:
        """(the row with our names, its columns that were left aside by not being named). Raises DataError."""
        if self.format == "sharegpt":
            return {**row, "messages": _turns(row.get("conversations")), "conversations": None}, set()
        columns, joined = self.columns_of()
        if not columns:
            return row, set()
        read = {ours: row[name] for ours, name in columns.items() if name in row}
        if absent := [columns[ours] for ours in columns if ours not in (*read, "rationale")]:
            raise DataError(f"there is no value in {', '.join(map(repr, absent))}")
        if joined:
            read["question"] = _filled(_ALPACA[1] if self.format else self.template, row)
        left = set(row) - set(columns.values()) - set(joined)
        if self.format:  # which says of all columns what they are: another may change what a row means
            return {name: row[name] for name in left - set(read)} | read, left & set(read)
        return read, left


KEYS = tuple(field.name for field in fields(Source))
_HOW_TO_READ = {"hub", "config", "split", "revision", "format", "columns", "template"}


def read_source(entry: Mapping) -> tuple[Source | None, list[str]]:
    """(what a mixture's entry says of its rows, None where they cannot be read by it; problems)."""
    given = {key: entry[key] for key in KEYS if key in entry}
    clean, problems = check_values(Source, given, "key")
    source = Source(**clean)
    wrong = [text for text, is_wrong in _rules(source, entry) if is_wrong]
    is_readable = not wrong and not _HOW_TO_READ & (set(given) - set(clean))
    return source if is_readable else None, problems + wrong


def _rules(source: Source, entry: Mapping) -> list[tuple[str, bool]]:
    """(what would be wrong, whether it is) of keys that stand in an entry together."""
    columns, parts = source.columns, ("test", "validation")
    ways = [{"format"}, {"benchmark"}, {"columns", "template"}]
    strange = [ours for ours in columns if ours not in OURS]
    rules = [
        (
            "config, split and revision are of a data set on the hub: say `hub: owner/name`",
            not source.hub and bool({"config", "split", "revision"} & set(entry)),
        ),
        (f"hub = {source.hub!r}: give owner/name", bool(source.hub) and source.hub.count("/") != 1),
        ("split and train both say what to train on; give one of them", "split" in entry and "train" in entry),
        (
            "format, benchmark, and columns with template each say what a row is; give one of them",
            sum(bool(way & set(entry)) for way in ways) > 1,
        ),
        (
            "columns: the question is the template's; take one of them away",
            bool(source.template) and "question" in columns,
        ),
        (
            "columns: messages stand alone, without question, answer and template",
            "messages" in columns and (len(columns) > 1 or bool(source.template)),
        ),
        ("columns: give a name for each", not all(isinstance(name, str) for name in columns.values())),
        *((f"columns: {unknown('name', ours, OURS)}", True) for ours in strange),
        (
            f"template {source.template!r}: {_template_problem(source.template or '')}",
            bool(_template_problem(source.template or "")),
        ),
    ]
    rules += [
        (
            f"{part} and {part}_split both say what the {part} items are; give one of them",
            {part, f"{part}_split"} <= set(entry),
        )
        for part in parts
    ]
    return rules


def _template_problem(template: str) -> str:
    try:
        parts = list(string.Formatter().parse(template))
    except ValueError as error:
        return f"{error}; a brace that is text is written twice"
    is_plain = all(not spec and not conversion for _, _, spec, conversion in parts)
    return (
        ""
        if is_plain and (not template or any(name for _, name, *_ in parts))
        else "give names of columns alone in braces, as in '{context} {question}'"
    )


def _filled(template: str, row: Mapping) -> str:
    """The template with the row's texts; what a row has no value for leaves nothing."""
    texts = []
    for literal, name, *_ in string.Formatter().parse(template):
        text = "" if name is None else row.get(name, "")
        if not isinstance(text, str):
            raise DataError(f"{name!r} is a {type(text).__name__}; the template takes texts")
        texts += [literal, text]
    return "".join(texts)


def _turns(conversations: object) -> object:
    """ShareGPT's turns as messages; what is none is left for the check of messages."""
    if not isinstance(conversations, list):
        return conversations
    return [
        {_TURN.get(k, k): _ROLES.get(v, v) if k == "from" and isinstance(v, str) else v for k, v in turn.items()}
        if isinstance(turn, dict)
        else turn
        for turn in conversations
    ]
