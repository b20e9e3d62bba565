"""One HTML page of all tables and figures of a folder of outputs, with nothing beside it to load.

python -m paper_figures.report --out paper_figures/out/tiny
"""

import argparse
import csv
import json
import re
import shlex
import sys
from pathlib import Path

from msft.errors import ConfigError
from msft.store.files import write_atomic
from paper_figures import contents, manifest
from paper_figures.markup import (
    NUMBER,
    anchor,
    as_number,
    columns,
    csv_cells,
    escaped,
    html_table,
    image,
    link_to,
    prose,
)

OUT = Path(__file__).parent / "out"
_SOURCES = Path(__file__).resolve().parents[1] / "notebooks"
_STYLE = Path(__file__).with_name("report.css")
_VERDICT = "same direction"  # the column by which a table of claims is known
_MARKS = {"yes": ("shown", "✓ shown"), "cannot tell": ("open", "? cannot tell"), "no": ("fails", "✗ fails here")}
_MANY_SEEDS = "many_seeds"  # the end of such a table's name
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
        f"<h1>mSFT: tables and figures, profile {escaped(profile)}</h1>",
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
            f"<title>mSFT: tables and figures, profile {escaped(profile)}</title>",
            f"<style>\n{_STYLE.read_text(encoding='utf-8')}</style>\n</head>\n<body>",
            _contents(shown, titles),
            "<main>",
            *parts,
            "</main>\n</body>\n</html>\n",
        ]
    )


def _contents(shown: dict, titles: dict) -> str:
    lines = [
        '<nav aria-label="Contents">',
        '<p><a href="#summary">In short</a> · <a href="#overview">Items of the paper</a></p>',
        "<ol>",
    ]
    for stem, items in shown.items():
        inner = "".join(
            f'<li><a href="#{anchor(item["name"])}">{escaped(item["item"])} <small>{escaped(item["name"])}</small></a></li>'
            for item in items
        )
        lines.append(f'<li><a href="#{anchor(stem)}">{escaped(titles[stem])}</a><ul>{inner}</ul></li>')
    return "\n".join(
        [*lines, "</ol>", '<p><a href="#runs">Runs</a> · <a href="#environment">Environment</a></p>', "</nav>"]
    )


def _summary(out: Path, items: list[dict]) -> str:
    """The page that a busy reader can stop at: the first picture, a sentence a main item, and what holds of the paper's claims."""
    figures: dict[str, dict] = {}
    for item in items:
        if item.get("finding") and (out / f"{item['name']}.png").is_file():
            figures.setdefault(item["item"], item)
    # a page of other items opens with all that it has
    told = [figures[name] for name in _TOLD_FIRST if name in figures] or list(figures.values())
    lines = ['<section id="summary">\n<h2>In short</h2>']
    lines += [image(out / f"{item['name']}.png", item["finding"]) for item in told[:1]]
    sentences = "".join(
        f'<li>{escaped(item["finding"])} (<a href="#{anchor(item["name"])}">{escaped(item["item"])}</a>).</li>'
        for item in told[1:]
    )
    lines.append(f"<ul>{sentences}</ul>")
    if rows := _claims(out, items):
        lines.append(
            "<p>The paper's claims here, those over many seeds first. Shown: the 95 % interval lies on the paper's side of 0. Where "
            "a row names no seeds, it is of one seed's runs, and the interval is over their test items or sub-datasets: another seed "
            "may say otherwise.</p>"
        )
        lines.append(html_table(["claim", "", "the paper", "here", "95 % interval", "item"], rows))
    return "\n".join([*lines, "</section>"])


def _claims(out: Path, items: list[dict]) -> list[list[str]]:
    """The rows of every table that compares directions with the paper's, as HTML, the verdict as a mark."""
    rows = []
    for item in sorted(items, key=lambda item: not item["name"].endswith(_MANY_SEEDS)):  # which says the most
        path = out / f"{item['name']}.csv"
        if item["kind"] != "table" or not path.is_file():
            continue
        with open(path, newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                if _VERDICT not in row:
                    break
                claim, theirs, ours, interval, verdict = row.values()
                unit = list(row)[1].partition("(")[2].rstrip(")").removeprefix("in its unit")  # the claim says which
                kind, mark = _MARKS[verdict] if interval != "–" else ("open", "? no interval")
                numbers = (_signed(value) for value in (theirs, ours))
                link = f'<a href="#{anchor(item["name"])}">{escaped(item["item"])}</a>'
                cells = [f"{escaped(claim)} <small>{escaped(unit)}</small>", f'<span class="{kind}">{mark}</span>']
                rows.append([*cells, *numbers, f'<span class="span">{escaped(interval)}</span>', link])
    return rows


def _signed(cell: str) -> str:
    """A number with its sign, or the word that stands for one that the paper does not give."""
    number = as_number(cell)
    return f"{NUMBER}{escaped(cell) or '–' if number is None else f'{number:+.1f}' if abs(number) >= 1 else f'{number:+.2g}'}</span>"


def _overview(items: list[dict]) -> str:
    """Every figure and table of the paper, with the place where it is on this page."""
    places: dict[str, list[str]] = {name: [] for name in contents.PAPER_ITEMS}
    for item in items:
        for name in contents.paper_items(item["item"]):
            places.setdefault(name, []).append(f'<a href="#{anchor(item["name"])}">{escaped(item["name"])}</a>')
    count = sum(bool(places[name]) for name in contents.PAPER_ITEMS)
    rows = [
        [escaped(name), escaped(contents.PAPER_ITEMS.get(name, "")), ", ".join(where) or "<em>not on this page</em>"]
        for name, where in places.items()
    ]
    head = (
        f'<section id="overview">\n<h2>Items of the paper</h2>\n<p>{count} of {len(contents.PAPER_ITEMS)} are here.</p>'
    )
    return f"{head}\n{html_table(['item', 'content', 'here'], rows)}\n</section>"


def _section(out: Path, to: Path, stem: str, items: list[dict], made: dict) -> str:
    title, paragraphs = _prose(out, stem)
    entry = made["notebooks"].get(stem, {})
    executed = link_to(out / f"{stem}.ipynb", to, f"executed notebook {stem}.ipynb") or f"notebook {escaped(stem)}"
    seconds = f", {entry['seconds']:.0f} s" if entry else ""
    lines = [f'<section id="{anchor(stem)}">\n<h2>{escaped(title)}</h2>\n<p class="source">{executed}{seconds}</p>']
    if entry.get("status") == "failed":
        lines.append(f'<p class="failed">Its last execution failed: {escaped(entry["problem"])}</p>')
    lines += [f"<p>{prose(paragraph)}</p>" for paragraph in paragraphs]
    lines += [_item(out, to, item, made) for item in items]
    lines += [f'<pre class="said">{escaped(text)}</pre>' for text in _said(out / f"{stem}.ipynb")]
    return "\n".join([*lines, "</section>"])


def _item(out: Path, to: Path, item: dict, made: dict) -> str:
    name, width = item["name"], ""
    picture, numbers = out / f"{name}.png", out / f"{name}.csv"
    if not (picture if item["kind"] == "figure" else numbers).is_file():
        body = (
            f'<p class="failed">Its file is not in {escaped(out.name)}; execute {escaped(item["notebook"])} again.</p>'
        )
    elif item["kind"] == "figure":
        body = image(picture, f"{item['item']}, {name}")
        width = {1: "one column, 8.5 cm: ", 2: "two columns, 17.5 cm: "}[columns(picture)]
    else:
        body = html_table(*csv_cells(numbers, item["decimals"], item["rounded"]))
    files = [link_to(out / f"{name}.{kind}", to, kind.upper()) for kind in ("png", "pdf", "csv", "md", "tex")]
    notebook = item["notebook"]
    files.append(
        link_to(out / f"{notebook}.ipynb", to, "notebook") or link_to(_SOURCES / f"{notebook}.ipynb", to, "notebook")
    )
    command = f"python -m paper_figures.execute {notebook} --profile {item['profile']}{_parameters(made, notebook)}"
    files.append(f"<code>{escaped(command)}</code>")
    runs = "".join(f'<li><a href="#{anchor(run)}">{escaped(run)}</a></li>' for run in item["runs"])
    count = f"{len(item['runs'])} run{'s' if len(item['runs']) > 1 else ''}"
    finding = f"<b>{escaped(item['finding'])}.</b> " if item.get("finding") else ""
    behind = f"<details><summary>{count} behind it</summary><ul>{runs}</ul></details>" if runs else ""
    return (
        f'<figure id="{anchor(name)}" class="{item["kind"]}">\n{body}\n'
        f"<figcaption><b>{escaped(item['item'])}:</b> {finding}{escaped(item['caption'])} "
        f'<span class="source">{escaped(name)}: {width}{" ".join(filter(None, files))}</span></figcaption>\n{behind}\n</figure>'
    )


def _parameters(made: dict, notebook: str) -> str:
    """The -p flags of the notebook's last execution, as they stood in its command."""
    execution = made["executions"].get(made["notebooks"].get(notebook, {}).get("execution"), {"command": ""})
    words = shlex.split(execution["command"])
    return "".join(f" -p {shlex.join(words[i + 1 : i + 3])}" for i, word in enumerate(words) if word == "-p")


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
        cells = [f'<span id="{anchor(name)}">{escaped(name)}</span>']
        if facts:
            cells += [f"{100 * facts['accuracy']:.1f}", f"{facts['epoch']:.2f}", f"{facts['seconds'] / 60:.1f}"]
            cells += [escaped((facts["commit"] or "–")[:10]), escaped(facts["started"][:10])]
        rows.append(cells + ["–"] * (6 - len(cells)))
    head = ["run", "best accuracy (%)", "at epoch", "minutes", "commit", "started"]
    doubts = [f"{name}: {said}" for name in names for said in made["runs"].get(name, {}).get("doubts", ())]
    listed = "".join(f"<li>{escaped(said)}</li>" for said in doubts)
    title = "Drops whose peak leads by no more than its standard error"
    below = f"\n<details><summary>{title}: {len(doubts)}</summary><ul>{listed}</ul></details>" if doubts else ""
    return f'<section id="runs">\n<h2>Runs</h2>\n{html_table(head, rows)}{below}\n</section>'


def _environment(made: dict) -> str:
    lines = ['<section id="environment">\n<h2>Environment</h2>']
    if not made["executions"]:
        lines.append("<p>There is no manifest.json: these notebooks were executed one by one, outside the wrapper.</p>")
    for started, common in made["executions"].items():
        stems = [stem for stem, entry in made["notebooks"].items() if entry["execution"] == started]
        seconds = common.get("seconds", {})
        rows = [["command", f"<code>{escaped(common['command'])}</code>"], ["started", escaped(started)]]
        rows += [[name, escaped(common[name])] for name in ("commit", "machine", "python")]
        rows += [[f"seconds of {escaped(name)} in this call", f"{value:.0f}"] for name, value in seconds.items()]
        rows += [[escaped(name), escaped(version)] for name, version in common["versions"].items()]
        rows += [["notebooks", escaped(", ".join(stems))]]
        lines.append(html_table(["", ""], rows))
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
