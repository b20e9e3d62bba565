"""Rows of one's own files: JSON lines, a JSON array, CSV, parquet; all but parquet may be compressed.

The kind and the compression are told by the name's ending; a file of any other ending is JSON, an array of objects where it
begins with '[', else an object a line. Texts stay as they are written: '007' in a CSV is no number, and a date in JSON no date.
"""

import bz2
import csv
import gzip
import io
import json
import lzma
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import zstandard

from msft.paths import is_pointer, nearest_file


def _open_zst(path: Path, mode: str, encoding: str) -> io.TextIOWrapper:
    """The text of a whole file: zstandard's own `open` ends without a word where a file is cut off."""
    data, parts = path.read_bytes(), []
    while data:
        frame = zstandard.ZstdDecompressor().decompressobj()
        parts.append(frame.decompress(data))
        if not frame.eof:
            raise EOFError("the compressed file ends before its end-of-stream marker was reached")
        data = frame.unused_data
    return io.TextIOWrapper(io.BytesIO(b"".join(parts)), encoding)


csv.field_size_limit(2**31 - 1)  # a long cell is left out like any long example
_EXCEL = re.compile(r'="(.*)"', re.DOTALL)
_OPEN = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open, ".zst": _open_zst}


class Rows(NamedTuple):
    """What a file or a split of the hub holds.

    rows: (line number, or 'row n' where there are no lines, row without its null columns).
    columns: names of all columns; of JSON all keys that some row has a value for.
    is_table: whether every row has the same columns.
    problems: what is wrong with the other lines.
    """

    rows: Sequence[tuple[int | str, dict]] = ()
    columns: Sequence[str] = ()
    is_table: bool = False
    problems: Sequence[str] = ()


def read_file(path: Path, is_raw: bool = False) -> Rows:
    """The rows of a file. is_raw: whether values of a parquet file stay numbers, as the hub has them."""
    endings = [suffix.lower() for suffix in path.suffixes]
    opener = _OPEN.get(endings.pop(), open) if endings and endings[-1] in _OPEN else open
    kind = endings[-1] if endings else ""
    try:
        if path.exists() and not path.is_file():  # reading a device or a pipe might never end
            raise OSError(
                "it is no file; give a data file (of a folder of `save_to_disk` Dataset.to_parquet makes one)"
            )
        if is_pointer(path):
            raise OSError("it is Git LFS's pointer to a file that was not fetched; run `git lfs pull`")
        if kind == ".parquet":
            return table_rows(_parquet(path), str(path), is_raw)
        with opener(path, "rt", encoding="utf-8-sig") as file:
            read = {".csv": _csv, ".tsv": _csv}.get(kind, _json)
            read = read(path, file.read().replace("\n\ufeff", "\n"))  # of files that were joined
    except FileNotFoundError:
        if path.is_symlink():
            return Rows(problems=[f"{path}: a link to {os.readlink(path)}, which is not there"])
        is_url = ":/" in str(path)  # Path keeps one slash of two
        way = nearest_file(path)
        way = " It is an address: download the file and name that, or say `hub: owner/name`." if is_url else way
        return Rows(problems=[f"{path}: no such file.{way}"])
    except UnicodeError as error:
        mend = f"save it as UTF-8, or name it by what it is: .parquet, .csv or .json, compressed {', '.join(_OPEN)}"
        mend += "; write another kind, such as .arrow, .xlsx or .zip, as one of these"
        return Rows(problems=[f"{path}: not UTF-8 text ({error}); {mend}"])
    except Exception as error:  # of the file system, of each compression, of the csv module and pyarrow
        return Rows(problems=[f"{path}: cannot be read: {error}"])
    return read if read.rows or read.problems else Rows(problems=[f"{path} has no rows"])


def _object(pairs: list[tuple[str, object]]) -> dict:
    """A JSON object, whose keys must differ: the json module keeps the last of two without a word."""
    row = dict(pairs)
    if len(row) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {next(name for name in names if names.count(name) > 1)!r} stands twice")
    return row


def _json_lines(path: Path, text: str) -> Rows:
    rows, problems = [], []
    for number, line in enumerate(text.split("\n"), 1):
        try:
            rows += [(number, json.loads(line, object_pairs_hook=_object))] if line.strip() else []
        except (ValueError, RecursionError) as error:
            problems.append(f"{path}:{number}: not JSON ({error})")
    if problems and not rows:  # another kind of file, or an object over several lines
        mend = "give one object a line or an array of them, or name the file by what it is"
        return Rows(problems=[f"{problems[0]}, nor is any other line; {mend}"])
    return _objects(path, rows, problems)


def _json(path: Path, text: str) -> Rows:
    """An array of objects, or JSON lines: each is kept under the other's ending too."""
    if not text.lstrip().startswith("["):
        return _json_lines(path, text)
    try:
        values = json.loads(text, object_pairs_hook=_object)
        return _objects(path, [(f"row {number}", row) for number, row in enumerate(values, 1)])
    except (ValueError, RecursionError) as error:
        return Rows(problems=[f"{path}: not JSON ({error})"])


def _objects(path: Path, values: Sequence[tuple[int | str, object]], problems: Sequence[str] = ()) -> Rows:
    """The JSON values that are objects; data sets that were joined have every column, null where a row lacks it."""
    rows = [(number, {k: v for k, v in row.items() if v is not None}) for number, row in values if type(row) is dict]
    others = [(number, type(row).__name__) for number, row in values if type(row) is not dict]
    problems = [*problems, *(f"{path}:{number}: a {kind}, not an object with keys" for number, kind in others)]
    return Rows(rows, list(dict.fromkeys(key for _, row in rows for key in row)), False, problems)


def _csv(path: Path, text: str) -> Rows:
    """Every cell is a text; a row is named by the line on which it ends."""
    reader, rows, problems = csv.DictReader(io.StringIO(text), strict=True, skipinitialspace=True), [], []
    try:
        columns = reader.fieldnames or []
        if len(columns) == 1 and (marks := [mark for mark in ";\t|" if mark in columns[0]]):
            what = f"{path}: its first row has {marks[0]!r} between cells"
            return Rows(problems=[f"{what}; write it with commas, as .csv"])
        if repeated := [name for name in dict.fromkeys(columns) if columns.count(name) > 1]:
            names = ", ".join(map(repr, repeated))
            return Rows(problems=[f"{path}: its first row must name the columns; it has {names} twice"])
        names = sorted(name.strip().casefold() for name in columns)
        for row in reader:
            place = f"{path}:{reader.line_num}"
            cells = len(columns) + len(row.pop(None, ())) - list(row.values()).count(None)
            if cells != len(columns):
                problems.append(f"{place}: {cells} cells in a table of {len(columns)} columns")
            elif sorted(cell.strip().casefold() for cell in row.values()) == names:
                problems.append(f"{place}: the names of the columns again, as in files that were joined")
            else:
                rows.append((reader.line_num, row))
        if problems and not rows:  # a title, a comment or a blank line
            what = f"{path}: its first row must name the columns; it is {','.join(columns)[:60]!r}"
            return Rows(problems=[f"{what}, and no row below fits it; take out what stands before the names"])
    except csv.Error as error:  # what stands behind it can be anything: none of the rows counts
        what = f"{path}:{reader.line_num + 1}: not CSV from this line on ({error})"
        return Rows(problems=[*problems, f"{what}; a quote within a cell is written twice"])
    for name in columns:  # ="007" keeps Excel from taking a text for a number
        texts = [row for _, row in rows if row[name]]
        if all(_EXCEL.fullmatch(row[name]) for row in texts):
            for row in texts:
                row[name] = row[name][2:-1].replace('""', '"')
    return Rows(rows, columns, True, problems)


def _parquet(path: Path):
    import pyarrow
    from datasets import Dataset
    from pyarrow import parquet

    # a table in memory: `load_dataset` would keep a second copy in its cache
    table = parquet.ParquetFile(path).read()
    for number, field in enumerate(table.schema):
        if "map<" in str(field.type):  # `datasets` has no such type: it must neither go unnamed nor become a text
            values = [{"map": str(value)} if value else None for value in table[number].to_pylist()]
            table = table.set_column(number, field.name, pyarrow.array(values))
    return Dataset(table)


def table_rows(dataset, place: str, is_raw: bool = False) -> Rows:
    """Rows of a `datasets.Dataset`, labels by name, whole numbers as texts; is_raw: as they are. place: for errors."""
    from datasets import ClassLabel

    names = {name: kind.names for name, kind in dataset.features.items() if isinstance(kind, ClassLabel)}

    def read(name: str, value: object) -> object:
        if type(value) is not int or is_raw:
            return value
        if name in names:
            return names[name][value] if 0 <= value < len(names[name]) else None
        return str(value)

    rows = [
        (f"row {number}", {name: text for name, value in row.items() if (text := read(name, value)) is not None})
        for number, row in enumerate(dataset.to_list(), 1)
    ]
    return Rows(rows, dataset.column_names, True, [] if rows else [f"{place} has no rows"])
