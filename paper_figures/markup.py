"""Pieces of an HTML page: escaped text, anchors, links, pictures and tables."""

import base64
import csv
import html
import math
import os
import re
import struct
from pathlib import Path
from urllib.parse import quote

NUMBER = '<span class="number">'
_CM = 64  # pixels of a page for a centimetre of a picture: letters of 6 points are then as large as small text


def escaped(value: object) -> str:
    """Text that HTML shows as it is."""
    return html.escape(str(value))


def anchor(name: str) -> str:
    """A name as the id of an element."""
    return re.sub(r"[^\w-]", "-", name)


def link_to(path: Path, to: Path, label: str) -> str:
    """A relative link to a file, or '' where there is none."""
    if not path.is_file():
        return ""
    target = quote(Path(os.path.relpath(path.resolve(), to.resolve().parent)).as_posix())
    return f'<a href="{escaped(target)}">{escaped(label)}</a>'


def prose(text: str) -> str:
    """Markdown's emphasis and code of one paragraph as HTML; a list keeps its lines."""
    safe = re.sub(r"`([^`]+)`", r"<code>\1</code>", escaped(text))
    safe = re.sub(r"\*\*([^*]+)\*\*", r"<b>\1</b>", safe)
    safe = re.sub(r"\*(?=\S)([^*]+)(?<=\S)\*", r"<em>\1</em>", safe)
    return re.sub(r"\n(?=(?:[-*]|\d+\.) )", "<br>\n", safe)


def image(path: Path, label: str) -> str:
    """A PNG, within the page, as large as its print asks for; one of two columns scrolls where the screen is narrow."""
    text, (width, height) = base64.b64encode(path.read_bytes()).decode(), centimetres(path)
    size = f'width="{width * _CM:.0f}" height="{height * _CM:.0f}"'
    shown = f'<img src="data:image/png;base64,{text}" {size} alt="{escaped(label)}">'
    return f'<div class="two" tabindex="0">{shown}</div>' if columns(path) == 2 else shown


def centimetres(path: Path) -> tuple[float, float]:
    """Width and height in print of a PNG, by the density that matplotlib writes into it."""
    data = path.read_bytes()
    pixels, place = struct.unpack(">II", data[16:24]), data.index(b"pHYs") + 4  # pixels a metre
    return tuple(
        100 * p / a_metre for p, a_metre in zip(pixels, struct.unpack(">II", data[place : place + 8]), strict=True)
    )


def columns(path: Path) -> int:
    """How many columns of a paper a PNG is wide: 1 or 2."""
    return 1 if centimetres(path)[0] < 9 else 2


def html_table(head: list[str], rows: list[list[str]]) -> str:
    """head: text.  rows: HTML of the cells."""
    right = [bool(rows) and rows[0][place].startswith(NUMBER) for place in range(len(head))]
    top = "".join(f"<th{' class=right' if r else ''}>{escaped(cell)}</th>" for cell, r in zip(head, right, strict=True))
    body = "\n".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    # a box of its own scrolls, reached by keyboard too, and the page does not
    return (
        f'<div class="box" tabindex="0"><table>\n<thead><tr>{top}</tr></thead>\n<tbody>\n{body}\n</tbody></table></div>'
    )


def csv_cells(path: Path, decimals: int, rounded: list[str]) -> tuple[list[str], list[list[str]]]:
    """(head, HTML of the cells) of a CSV; the columns named in `rounded` with so many decimals."""
    with open(path, newline="", encoding="utf-8") as file:
        head, *rows = csv.reader(file)
    if rows and not head[0] and [row[0] for row in rows] == [str(i) for i in range(len(rows))]:
        head, rows = head[1:], [row[1:] for row in rows]  # the index is only a count
    places = [decimals if name in rounded else 0 for name in head]
    columns = [_column(list(column), d) for column, d in zip(zip(*rows, strict=True), places, strict=True)]
    return head, [list(row) for row in zip(*columns, strict=True)]


def _column(cells: list[str], decimals: int) -> list[str]:
    numbers = [as_number(cell) for cell in cells]
    if all(number is None for number in numbers) or any(c and n is None for c, n in zip(cells, numbers, strict=True)):
        return [escaped(cell) or "–" for cell in cells]

    def shown(number: float | None, cell: str) -> str:
        if number is None:
            return "–"
        if abs(number) >= 1e7:
            return f"{number:.3g}"
        if not decimals and number != int(number):
            return f"{number:.6g}"
        known = 5 - math.floor(math.log10(abs(number) or 1))  # a CSV has six digits
        return f"{round(number, decimals) + 0.0:,.{max(min(decimals, known), 0)}f}"

    return [f"{NUMBER}{shown(n, c)}</span>" for n, c in zip(numbers, cells, strict=True)]


def as_number(cell: str) -> float | None:
    """The number that a CSV's cell holds; None for text."""
    try:
        return float(cell)
    except ValueError:
        return None
