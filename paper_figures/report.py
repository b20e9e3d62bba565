"""One HTML page of all tables and figures of a folder of outputs, with nothing beside it to load.

python -m paper_figures.report --out paper_figures/out/tiny
"""

import argparse
import base64
import csv
import html
import json
import os
import re
import struct
import sys
from pathlib import Path
from urllib.parse import quote

from msft.errors import ConfigError
from msft.store.files import write_atomic
from paper_figures import contents, manifest

OUT = Path(__file__).parent / "out"
_SOURCES = Path(__file__).resolve().parents[1] / "notebooks"
_NUMBER = '<span class="number">'
_STYLE = Path(__file__).with_name("report.css")
_VERDICT = "same direction"  # the column by which a table of claims is known
_MARKS = {"yes": ("shown", "✓ shown"), "cannot tell": ("open", "? cannot tell"), "no": ("fails", "✗ fails here")}
_TOLD_FIRST = ("first picture", "Fig. 2", "Fig. 3", "Table 2", "Fig. 6", "Table 6")  # whose findings open the page


def write(out: str | Path, to: str | Path | None = None) -> Path:
    """Writes the page of the outputs in `out` to `to` (<out>/report.html); returns its path.

    Raises ConfigError where no notebook has left a table or figure there.
    """
    out = Path(out)
    to = Path(to or out / "report.html")
    page = render(out, to)
    to.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(to, page)
    return to


def render(out: Path, to: Path) -> str:
    """The page as text; links to other files are relative to the folder of `to`."""
    items, made = manifest.items(out), manifest.read(out)
    if not items:
        there = ", ".join(sorted(str(path.parent) for path in out.parent.glob("*/items"))) or "none"
        raise ConfigError(
            f"nothing to report: no notebook has left a table or figure in {out}. Execute them first, as with `make "
            f"reproduce` or `make notebooks PROFILE=smoke`, or name their folder by --out. Found beside it: {there}."
        )
    order = list(contents.NOTEBOOKS)
    stems = {item["notebook"] for item in items} | set(made["notebooks"])
    stems = sorted(stems, key=lambda stem: (order.index(stem) if stem in order else len(order), stem))
    shown = {stem: [item for item in items if item["notebook"] == stem] for stem in stems}
    for entries in shown.values():
        entries.sort(key=lambda item: (item.get("place", 0), item["name"]))
    titles = {stem: _prose(out, stem)[0] for stem in stems}
    profile = " and ".join(sorted({item["profile"] for item in items}))
    parts = [
        f"<h1>mSFT: tables and figures, profile {_text(profile)}</h1>",
        _summary(out, items),
        _overview(items),
        *(_section(out, to, stem, shown[stem], made) for stem in stems),
        _runs(items, made),
        _environment(made),
    ]
    return "\n".join(
        [
            '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<link rel="icon" href="data:,">',
            f"<title>mSFT: tables and figures, profile {_text(profile)}</title>",
            f"<style>\n{_STYLE.read_text(encoding='utf-8')}</style>\n</head>\n<body>",
            _contents(shown, titles),
            "<main>",
            *parts,
            "</main>\n</body>\n</html>\n",
        ]
    )


def _text(value: object) -> str:
    return html.escape(str(value))


def _anchor(name: str) -> str:
    return re.sub(r"[^\w-]", "-", name)


def _link(path: Path, to: Path, label: str) -> str:
    """A relative link to a file, or '' where there is none."""
    if not path.is_file():
        return ""
    target = quote(Path(os.path.relpath(path.resolve(), to.resolve().parent)).as_posix())
    return f'<a href="{_text(target)}">{_text(label)}</a>'


def _contents(shown: dict, titles: dict) -> str:
    lines = [
        '<nav aria-label="Contents">',
        '<p><a href="#summary">In short</a> · <a href="#overview">Items of the paper</a></p>',
        "<ol>",
    ]
    for stem, items in shown.items():
        inner = "".join(
            f'<li><a href="#{_anchor(item["name"])}">{_text(item["item"])} <small>{_text(item["name"])}</small></a></li>'
            for item in items
        )
        lines.append(f'<li><a href="#{_anchor(stem)}">{_text(titles[stem])}</a><ul>{inner}</ul></li>')
    return "\n".join(
        [*lines, "</ol>", '<p><a href="#runs">Runs</a> · <a href="#environment">Environment</a></p>', "</nav>"]
    )


def _summary(out: Path, items: list[dict]) -> str:
    """The page that a busy reader can stop at: the first picture, a sentence a main item, and what holds of the paper's claims."""
    figures: dict[str, dict] = {}
    for item in items:
        if item.get("finding") and item["item"] in _TOLD_FIRST and (out / f"{item['name']}.png").is_file():
            figures.setdefault(item["item"], item)
    told = [figures[name] for name in _TOLD_FIRST if name in figures]
    lines = ['<section id="summary">\n<h2>In short</h2>']
    lines += [_picture(out / f"{item['name']}.png", item["finding"]) for item in told[:1]]
    sentences = "".join(
        f'<li>{_text(item["finding"])} (<a href="#{_anchor(item["name"])}">{_text(item["item"])}</a>).</li>'
        for item in told[1:]
    )
    lines.append(f"<ul>{sentences}</ul>")
    if rows := _claims(out, items):
        lines.append(
            "<p>The paper's claims here; shown: the 95 % interval lies on the paper's side of 0. Where a row "
            "names no seeds, it is of one seed's runs, and the interval is over their test items or sub-datasets: another seed may "
            "say otherwise.</p>"
        )
        lines.append(_table(["claim", "", "the paper", "here", "95 % interval", "item"], rows))
    return "\n".join([*lines, "</section>"])


def _claims(out: Path, items: list[dict]) -> list[list[str]]:
    """The rows of every table that compares directions with the paper's, as HTML, the verdict as a mark."""
    rows = []
    for item in items:
        path = out / f"{item['name']}.csv"
        if item["kind"] != "table" or not path.is_file():
            continue
        with open(path, newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                if _VERDICT not in row:
                    break
                claim, theirs, ours, interval, verdict = row.values()
                unit = list(row)[1].partition("(")[2].rstrip(")")
                kind, mark = _MARKS[verdict] if interval != "–" else ("open", "? no interval")
                numbers = (_signed(value) for value in (theirs, ours))
                link = f'<a href="#{_anchor(item["name"])}">{_text(item["item"])}</a>'
                cells = [f"{_text(claim)} <small>{_text(unit)}</small>", f'<span class="{kind}">{mark}</span>']
                rows.append([*cells, *numbers, f'<span class="span">{_text(interval)}</span>', link])
    return rows


def _signed(cell: str) -> str:
    """A number with its sign, or the word that stands for one that the paper does not give."""
    number = _number(cell)
    return f"{_NUMBER}{_text(cell) or '–' if number is None else f'{number:+.1f}'}</span>"


def _overview(items: list[dict]) -> str:
    """Every figure and table of the paper, with the place where it is on this page."""
    places: dict[str, list[str]] = {name: [] for name in contents.PAPER_ITEMS}
    for item in items:
        for name in contents.paper_items(item["item"]):
            places.setdefault(name, []).append(f'<a href="#{_anchor(item["name"])}">{_text(item["name"])}</a>')
    count = sum(bool(places[name]) for name in contents.PAPER_ITEMS)
    rows = [
        [_text(name), _text(contents.PAPER_ITEMS.get(name, "")), ", ".join(where) or "<em>not on this page</em>"]
        for name, where in places.items()
    ]
    head = (
        f'<section id="overview">\n<h2>Items of the paper</h2>\n<p>{count} of {len(contents.PAPER_ITEMS)} are here.</p>'
    )
    return f"{head}\n{_table(['item', 'content', 'here'], rows)}\n</section>"


def _section(out: Path, to: Path, stem: str, items: list[dict], made: dict) -> str:
    title, paragraphs = _prose(out, stem)
    entry = made["notebooks"].get(stem, {})
    executed = _link(out / f"{stem}.ipynb", to, f"executed notebook {stem}.ipynb") or f"notebook {_text(stem)}"
    seconds = f", {entry['seconds']:.0f} s" if entry else ""
    lines = [f'<section id="{_anchor(stem)}">\n<h2>{_text(title)}</h2>\n<p class="source">{executed}{seconds}</p>']
    if entry.get("status") == "failed":
        lines.append(f'<p class="failed">Its last execution failed: {_text(entry["problem"])}</p>')
    lines += [f"<p>{_inline(paragraph)}</p>" for paragraph in paragraphs]
    lines += [_item(out, to, item) for item in items]
    lines += [f'<pre class="said">{_text(text)}</pre>' for text in _said(out / f"{stem}.ipynb")]
    return "\n".join([*lines, "</section>"])


def _item(out: Path, to: Path, item: dict) -> str:
    name = item["name"]
    picture, numbers = out / f"{name}.png", out / f"{name}.csv"
    if not (picture if item["kind"] == "figure" else numbers).is_file():
        body = f'<p class="failed">Its file is not in {_text(out.name)}; execute {_text(item["notebook"])} again.</p>'
    elif item["kind"] == "figure":
        body = _picture(picture, f"{item['item']}, {name}")
    else:
        body = _table(*_cells(numbers, item["decimals"], item["rounded"]))
    files = [_link(out / f"{name}.{kind}", to, kind.upper()) for kind in ("png", "pdf", "csv", "md", "tex")]
    notebook = item["notebook"]
    files.append(
        _link(out / f"{notebook}.ipynb", to, "notebook") or _link(_SOURCES / f"{notebook}.ipynb", to, "notebook")
    )
    files.append(f"<code>python -m paper_figures.execute {_text(notebook)} --profile {_text(item['profile'])}</code>")
    runs = "".join(f'<li><a href="#{_anchor(run)}">{_text(run)}</a></li>' for run in item["runs"])
    count = f"{len(item['runs'])} run{'s' if len(item['runs']) > 1 else ''}"
    finding = f"<b>{_text(item['finding'])}</b> " if item.get("finding") else ""
    behind = f"<details><summary>{count} behind it</summary><ul>{runs}</ul></details>" if runs else ""
    return (
        f'<figure id="{_anchor(name)}" class="{item["kind"]}">\n{body}\n'
        f"<figcaption><b>{_text(item['item'])}</b> {finding}{_text(item['caption'])} "
        f'<span class="source">{_text(name)}: {" ".join(filter(None, files))}</span></figcaption>\n{behind}\n</figure>'
    )


def _picture(path: Path, label: str) -> str:
    data = path.read_bytes()
    width, height = struct.unpack(">II", data[16:24])  # of the PNG header
    text = base64.b64encode(data).decode()
    return f'<img src="data:image/png;base64,{text}" width="{width // 2}" height="{height // 2}" alt="{_text(label)}">'


def _table(head: list[str], rows: list[list[str]]) -> str:
    """head: text.  rows: HTML of the cells."""
    right = [bool(rows) and rows[0][place].startswith(_NUMBER) for place in range(len(head))]
    top = "".join(f"<th{' class=right' if r else ''}>{_text(cell)}</th>" for cell, r in zip(head, right, strict=True))
    body = "\n".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    # a box of its own scrolls, reached by keyboard too, and the page does not
    return (
        f'<div class="box" tabindex="0"><table>\n<thead><tr>{top}</tr></thead>\n<tbody>\n{body}\n</tbody></table></div>'
    )


def _cells(path: Path, decimals: int, rounded: list[str]) -> tuple[list[str], list[list[str]]]:
    """(head, HTML of the cells) of a CSV; the columns named in `rounded` with so many decimals."""
    with open(path, newline="", encoding="utf-8") as file:
        head, *rows = csv.reader(file)
    if rows and not head[0] and [row[0] for row in rows] == [str(i) for i in range(len(rows))]:
        head, rows = head[1:], [row[1:] for row in rows]  # the index is only a count
    places = [decimals if name in rounded else 0 for name in head]
    columns = [_column(list(column), d) for column, d in zip(zip(*rows, strict=True), places, strict=True)]
    return head, [list(row) for row in zip(*columns, strict=True)]


def _column(cells: list[str], decimals: int) -> list[str]:
    numbers = [_number(cell) for cell in cells]
    if all(number is None for number in numbers) or any(c and n is None for c, n in zip(cells, numbers, strict=True)):
        return [_text(cell) or "–" for cell in cells]

    def shown(number: float | None, cell: str) -> str:
        if number is None:
            return "–"
        if abs(number) >= 1e6:
            return f"{number:.3g}"
        return f"{number:,.{decimals}f}" if decimals or number == int(number) else _text(cell)

    return [f"{_NUMBER}{shown(n, c)}</span>" for n, c in zip(numbers, cells, strict=True)]


def _number(cell: str) -> float | None:
    try:
        return float(cell)
    except ValueError:
        return None


def _notebook(path: Path) -> list[dict]:
    return json.loads(path.read_text(encoding="utf-8"))["cells"] if path.is_file() else []


def _prose(out: Path, stem: str) -> tuple[str, list[str]]:
    """(title, paragraphs) of a notebook's first cell of text."""
    for cell in _notebook(out / f"{stem}.ipynb") or _notebook(_SOURCES / f"{stem}.ipynb"):
        text = "".join(cell["source"])
        if cell["cell_type"] == "markdown" and text.startswith("# "):
            title, _, rest = text[2:].partition("\n")
            return title.strip(), [part for part in re.split(r"\n\s*\n", rest.strip()) if part]
    return stem, []


def _inline(text: str) -> str:
    """Markdown's emphasis and code of one paragraph as HTML; a list keeps its lines."""
    safe = re.sub(r"`([^`]+)`", r"<code>\1</code>", _text(text))
    safe = re.sub(r"\*\*([^*]+)\*\*", r"<b>\1</b>", safe)
    safe = re.sub(r"\*(?=\S)([^*]+)(?<=\S)\*", r"<em>\1</em>", safe)
    return re.sub(r"\n(?=(?:[-*]|\d+\.) )", "<br>\n", safe)


def _said(path: Path) -> list[str]:
    """What an executed notebook prints about its numbers."""
    said = []
    for cell in _notebook(path):
        for output in cell.get("outputs", []):
            if output.get("name") == "stdout":
                said.append("".join(output["text"]).strip())
            elif "text/markdown" in output.get("data", {}):
                said.append("".join(output["data"]["text/markdown"]).strip())
    return [text for text in said if text]


def _runs(items: list[dict], made: dict) -> str:
    names = sorted({run for item in items for run in item["runs"]})
    rows = []
    for name in names:
        facts = made["runs"].get(name, {})
        cells = [f'<span id="{_anchor(name)}">{_text(name)}</span>']
        if facts:
            cells += [f"{100 * facts['accuracy']:.1f}", f"{facts['epoch']:.2f}", f"{facts['seconds'] / 60:.1f}"]
            cells += [_text((facts["commit"] or "–")[:10]), _text(facts["started"][:10])]
        rows.append(cells + ["–"] * (6 - len(cells)))
    head = ["run", "best accuracy (%)", "at epoch", "minutes", "commit", "started"]
    doubts = [f"{name}: {said}" for name in names for said in made["runs"].get(name, {}).get("doubts", ())]
    listed = "".join(f"<li>{_text(said)}</li>" for said in doubts)
    title = "Drops whose peak leads by no more than its standard error"
    below = f"\n<details><summary>{title}: {len(doubts)}</summary><ul>{listed}</ul></details>" if doubts else ""
    return f'<section id="runs">\n<h2>Runs</h2>\n{_table(head, rows)}{below}\n</section>'


def _environment(made: dict) -> str:
    lines = ['<section id="environment">\n<h2>Environment</h2>']
    if not made["executions"]:
        lines.append("<p>There is no manifest.json: these notebooks were executed one by one, outside the wrapper.</p>")
    for started, common in made["executions"].items():
        stems = [stem for stem, entry in made["notebooks"].items() if entry["execution"] == started]
        seconds = common.get("seconds", {})
        rows = [["command", f"<code>{_text(common['command'])}</code>"], ["started", _text(started)]]
        rows += [[name, _text(common[name])] for name in ("commit", "machine", "python")]
        rows += [[f"seconds of {_text(name)}", f"{value:.0f}"] for name, value in seconds.items()]
        rows += [[_text(name), _text(version)] for name, version in common["versions"].items()]
        rows += [["notebooks", _text(", ".join(stems))]]
        lines.append(_table(["", ""], rows))
    return "\n".join([*lines, "</section>"])


def main(words: list[str] | None = None) -> int:
    """The command line; exit code 2 where there is nothing to report."""
    parser = argparse.ArgumentParser(prog="python -m paper_figures.report", description=__doc__.splitlines()[0])
    parser.add_argument("--out", default=str(OUT / "tiny"), help="the folder that the notebooks wrote to")
    parser.add_argument("--to", help="the page; report.html in that folder where it is left out")
    flags = parser.parse_args(words)
    try:
        print(write(flags.out, flags.to))
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
