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

import re
import string
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property

from msft.data.files import Rows
from msft.data.rows import QUESTION_KEYS, ROW_KEYS, has_value
from msft.errors import DataError, nearest, unknown
from msft.settings import check_values, setting

OURS = (*QUESTION_KEYS, *ROW_KEYS)
# the columns that every row of a format has a value for, and what the format says of them
FORMATS = {"alpaca": ("instruction", "output"), "sharegpt": ("conversations",), "openai": ("messages",)}
_SAYS = {
    "alpaca": {"columns": {"answer": "output"}, "template": "{instruction}\n{input}"},
    "sharegpt": {"columns": {"messages": "conversations"}},
}
_TURN, _ROLES = {"from": "role", "value": "content"}, {"human": "user", "gpt": "assistant"}  # of ShareGPT


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
    test_split: float | None = setting(None, "share of train's questions", low=0.0, high=1.0)
    validation_split: float | None = setting(None, "share of train's questions", low=0.0, high=1.0)
    skip_bad_rows: bool = setting(False, "whether rows that cannot be used are left out")

    @cached_property
    def _joined(self) -> list[str]:
        """The columns that the template joins."""
        return [name for _, name, *_ in string.Formatter().parse(self.template or "") if name is not None]

    @cached_property
    def _names(self) -> dict[str, str]:
        """{ours: theirs} of the columns that are read as they stand; {} where rows have our names."""
        if not self.columns and not self.template:
            return {}
        ours = ROW_KEYS if "messages" in self.columns else QUESTION_KEYS
        return {name: self.columns.get(name, name) for name in ours if not (self.template and name == "question")}

    @cached_property
    def _required(self) -> list[str]:
        """The columns that every row must have a value for."""
        return list(FORMATS.get(self.format) or [name for ours, name in self._names.items() if ours != "rationale"])

    def missing(self, rows: Rows) -> str:
        """What is wrong with the names of the columns, or ''."""
        needed, mend = [*self._required, *([] if self.format else [*self._joined, *self.columns.values()])], ""
        is_other = rows.is_table and "messages" not in rows.columns or not {*OURS} & {*rows.columns}
        if not needed and rows.columns and is_other:
            needed = QUESTION_KEYS[:2]
            mend = f" Say under `columns` which they are, or name a `format`: {', '.join(FORMATS)}."
        absent = [name for name in dict.fromkeys(needed) if name not in rows.columns]
        problems = [f"no column {name!r}.{nearest(name, rows.columns)}" for name in absent]
        return f"{' '.join(problems)} It has: {', '.join(map(str, rows.columns))}.{mend}" if problems else ""

    def shaped(self, row: dict) -> tuple[dict, set[str]]:
        """(the row with our names, its columns that were left aside by not being named). Raises DataError."""
        if absent := [name for name in self._required if name not in row]:
            raise DataError(f"it has no value for {', '.join(map(repr, absent))}")
        if not self._names:
            return row, set()
        read = {ours: row[name] for ours, name in self._names.items() if name in row}
        if self.template:
            read["question"] = _filled(self.template, row)
        if self.format == "sharegpt":
            read["messages"] = _turns(read["messages"])
        known = {*self._names.values(), *self._joined}
        left = {name for name, value in row.items() if name not in known and has_value(value)}
        # both say of all columns what they are: another one may change what a row means
        if self.format or "messages" in self.columns:
            return {name: row[name] for name in left - set(read)} | read, left & set(read)
        return read, left


KEYS = tuple(field.name for field in fields(Source))
_OF_HUB = {"config", "split", "revision"}
_HOW_TO_READ = {"hub", *_OF_HUB, "format", "columns", "template"}


def read_source(entry: Mapping) -> tuple[Source | None, list[str]]:
    """(what a mixture's entry says of its rows, None where they cannot be read by it; problems)."""
    values = {key: entry[key] for key in KEYS if key in entry}
    clean, problems = check_values(Source, values, "key")
    source = Source(**clean)
    wrong = _wrong(source, {key for key, value in entry.items() if value is not None})
    is_readable = not wrong and not _HOW_TO_READ & (set(values) - set(clean))
    return replace(source, **_SAYS.get(source.format, {})) if is_readable else None, problems + wrong


def _wrong(source: Source, keys: set) -> list[str]:
    """Problems of keys that do not go together, and of names and templates that cannot be read."""
    columns, template, hub = source.columns, source.template, source.hub
    ways = [way for way in ({"format"}, {"benchmark"}, {"columns", "template"}) if way & keys]
    is_with_messages = "messages" in columns and (len(columns) > 1 or template)
    wrong = _template_problem(template or "")
    # an answer that its question shows would always be right
    ours = {name: name for name in QUESTION_KEYS if not (template and name == "question")} | columns
    read = [*dict.fromkeys([] if wrong else source._joined), *ours.values()] if columns or template else []
    twice = ", ".join(dict.fromkeys(repr(name) for name in read if read.count(name) > 1))
    rules = [
        (keys & _OF_HUB and "hub" not in keys, "config, split and revision are of the hub: say `hub: owner/name`"),
        (hub and not re.fullmatch(r"\w[\w.-]*/[\w.-]+", hub), f"hub = {hub!r}: give owner/name"),
        (len(ways) > 1, "format, benchmark, and columns with template each say what a row is; give one of them"),
        (template and "question" in columns, "the template is the question: take `question` out of columns"),
        (is_with_messages, "columns: messages stand alone, without others or a template"),
        (not all(isinstance(name, str) for name in columns.values()), "columns: give each a name as text"),
        *((True, f"columns: {unknown('name', name, OURS)}") for name in columns if name not in OURS),
        (wrong, wrong),
        (twice, f"{twice}: this column is read twice; a question that shows its answer asks nothing, so name it once"),
    ]
    for part, way in (("train", "split"), ("test", "test_split"), ("validation", "validation_split")):
        rules.append(({part, way} <= keys, f"{part} and {way} both say what {part} is; give one of them"))
        is_absent = f"{part}_size" in keys and not {part, way} & keys
        rules.append((is_absent, f"{part}_size: the entry names no {part} rows to draw from"))
    return [problem for is_wrong, problem in rules if is_wrong]


def _template_problem(template: str) -> str:
    """What is wrong with a template, or ''."""
    try:
        parts = [part for part in string.Formatter().parse(template) if part[1] is not None]
    except ValueError as error:
        return f"template {template!r}: {error}; a brace that is text is written twice"
    if all(name and not spec and not conversion for _, name, spec, conversion in parts) and (parts or not template):
        return ""
    return f"template {template!r}: give names of columns, alone in braces, as in '{{context}} {{question}}'"


def _filled(template: str, row: Mapping) -> str:
    """The template with the row's texts; what a row has no value for leaves nothing."""
    texts = []
    for literal, name, *_ in string.Formatter().parse(template):
        text = "" if name is None else row.get(name, "")
        if not isinstance(text, str):
            raise DataError(f"{name!r} is of type {type(text).__name__}; the template takes texts")
        texts += [literal, text]
    return "".join(texts)


def _turns(conversations: object) -> object:
    """ShareGPT's turns as messages; what is none is left to the check of messages."""

    def message(turn: object) -> object:
        if not isinstance(turn, dict):
            return turn
        said = {_TURN.get(key, key): value for key, value in turn.items() if value is not None}
        if lost := [key for key, name in _TURN.items() if turn.get(key) not in (None, said.get(name))]:
            raise DataError(f"a turn has {lost[0]!r} and {_TURN[lost[0]]!r}, which say different things; take one out")
        role = said.get("role")
        return said | {"role": _ROLES.get(role, role)} if isinstance(role, str) else said

    return [message(turn) for turn in conversations] if isinstance(conversations, list) else conversations
