"""The report: one page that needs nothing beside it, holds every item, and reads well in a browser."""

import html
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import matplotlib.pyplot as plt
import nbformat
import pandas as pd
import pytest

from msft.errors import ConfigError
from paper_figures import manifest, report, study, style

CAPTION = "Accuracy < 50 % & \"more\", <script>alert('x')</script>."
MARKDOWN = "# Everything *over*-fits & more\nThe paper says **so** in `code`, for a < b.\n\n1. first\n2. second"
PROBE = """<script>addEventListener("load", () => parent.postMessage(JSON.stringify({
  width: innerWidth, scroll: document.documentElement.scrollWidth, images: document.images.length,
  missing: [...document.images].filter(i => !i.complete || !i.naturalWidth).length,
  beyond: [...document.querySelectorAll("body *")].filter(
    e => !e.closest(".box table, .two img") && e.getBoundingClientRect().right > innerWidth + 1).map(e => e.outerHTML.slice(0, 80)),
}), "*"))</script>"""
HARNESS = """<!DOCTYPE html><body><script>addEventListener("message", event => {
  const p = document.createElement("p"); p.className = "probe"; p.textContent = event.data; document.body.append(p)
})</script><iframe src="page.html" width="1280" height="800"></iframe><iframe src="page.html" width="390" height="800"></iframe>"""


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """Outputs of two notebooks, one of them executed, as study.Study leaves them."""
    folder = tmp_path_factory.mktemp("report") / "out"
    first = study.Study("03_main_results", "smoke", out_dir=str(folder))
    wide = pd.DataFrame(
        {f"column {i}": [1.25 * i, 2.0, None] for i in range(20)}, index=pd.Index(["x", "y", "<z>"], name="m")
    )
    first.table(wide, "zz_first", item="Table 2", caption="A wide table.", decimals=2)
    first.table(
        pd.DataFrame({"n": [3, 4000], "flops": [1.5e15, 2.0], "word": ["a|b", ""]}),
        "aa_second",
        item="Table 5",
        caption="c",
    )
    second = study.Study("01_heterogeneous_overfitting", "smoke", out_dir=str(folder))
    figure, axes = plt.subplots(figsize=(7, 2))
    axes.plot([1, 2])
    second.figure(axes, "curves", item="Fig. 2, 10 and 11", caption=CAPTION)
    plt.close(figure)
    path = folder / "items" / "01_curves.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "runs": ["sft-a-s20-01", "gone-s20-02"]}))
    (folder / "01_heterogeneous_overfitting.ipynb").write_text(nbformat.writes(executed()))
    common = {
        "command": "python -m x",
        "commit": "abc",
        "machine": "two cores",
        "python": "3",
        "versions": {"torch": "9"},
    }
    done = {
        "01_heterogeneous_overfitting": {"status": "done", "seconds": 12.0},
        "03_main_results": {"status": "failed", "seconds": 3.0, "problem": "cell 4 of 9 (x <- y): ValueError"},
    }
    manifest.update(folder, "2026-01-01T10:00:00", common, done, folder)
    made = manifest.read(folder)
    facts = {"accuracy": 0.5, "epoch": 7.5, "seconds": 90.0, "commit": None, "started": "2026-01-01T09:00:00"}
    (folder / "manifest.json").write_text(json.dumps({**made, "runs": {"sft-a-s20-01": facts}}))
    return folder


def executed():
    """A notebook with text, a sentence that it prints, and a picture that the report does not take from it."""
    said = nbformat.v4.new_output("stream", name="stdout", text="SFT is ahead by 2 < 3 points.\n")
    shown = nbformat.v4.new_output("display_data", data={"image/png": "AAAA", "text/plain": "<Figure>"})
    cell = nbformat.v4.new_code_cell("print(1)", outputs=[said, shown])
    return nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(MARKDOWN), cell])


@pytest.fixture(scope="module")
def page(out):
    return report.write(out).read_text(encoding="utf-8")


class Tags(HTMLParser):
    """Every tag with its attributes, and whether each is closed where it should be."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.open = [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in ("meta", "link", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def values(page, name):
    return [given[name] for _, given in Tags(page).tags if name in given]


def test_tags_are_closed_in_their_order(page):
    assert Tags(page).open == []


def test_nothing_is_loaded_from_anywhere(page):
    assert all(source.startswith("data:image/png;base64,") for source in values(page, "src"))
    assert not any(re.match(r"(?:https?:)?//", link) for link in values(page, "href") + values(page, "src"))
    assert "url(" not in page
    assert "@import" not in page
    assert "<script" not in page


def test_every_item_is_there_in_the_notebooks_order_with_its_picture_or_numbers(page):
    places = [page.index(f'<figure id="{name}"') for name in ("01_curves", "03_zz_first", "03_aa_second")]
    assert places == sorted(places)
    assert len([tag for tag, _ in Tags(page).tags if tag == "img"]) == 1
    assert "<b>Fig. 2, 10 and 11:</b>" in page


def test_names_and_captions_are_escaped(page):
    assert html.escape(CAPTION) in page
    assert "&lt;z&gt;" in page
    assert "cell 4 of 9 (x &lt;- y): ValueError" in page


def test_anchors_resolve_and_are_unique(page):
    ids = values(page, "id")
    assert len(ids) == len(set(ids))
    links = [link[1:] for link in values(page, "href") if link.startswith("#")]
    assert set(links) <= set(ids)
    assert {"01_curves", "03_zz_first", "runs", "environment", "sft-a-s20-01"} <= set(links)


def test_links_to_files_are_relative_and_lead_somewhere(page, out, tmp_path):
    files = [link for link in values(page, "href") if not link.startswith(("#", "data:"))]
    assert {"01_heterogeneous_overfitting.ipynb", "01_curves.pdf", "03_zz_first.csv"} <= set(files)
    assert all((out / link).is_file() for link in files)
    elsewhere = tmp_path / "a b" / "page.html"
    moved = values(report.write(out, elsewhere).read_text(), "href")
    assert all((elsewhere.parent / link).is_file() for link in moved if not link.startswith(("#", "data:")))


def test_numbers_are_rounded_as_in_the_notebook(page):
    def row(text):
        (line,) = [line for line in page.splitlines() if line.startswith(f"<tr><td>{text}")]
        return re.sub(r"<[^>]*>", " ", line).split()

    assert row("x")[:4] == ["x", "0.00", "1.25", "2.50"]
    assert row("&lt;z")[:3] == ["&lt;z&gt;", "–", "–"]
    # a count for an index is not shown; large numbers are short; whole ones stay whole
    assert row('<span class="number">3<') == ["3", "1.5e+15", "a|b"]
    assert row('<span class="number">4,000<') == ["4,000", "2.0", "–"]


def test_the_notebooks_words_are_there(page):
    assert "<h2>Everything *over*-fits &amp; more</h2>" in page
    assert "says <b>so</b> in <code>code</code>, for a &lt; b." in page
    assert "1. first<br>\n2. second" in page
    assert "SFT is ahead by 2 &lt; 3 points." in page
    assert "AAAA" not in values(page, "src")


def test_what_is_missing_of_the_paper_is_said(page):
    assert "5 of 25 are here." in page
    overview = page[page.index('id="overview"') : page.index('id="01_heterogeneous_overfitting"')]
    assert overview.count("not on this page") == 20
    assert overview.count('href="#01_curves"') == 3


def test_runs_and_environment_are_there(page):
    assert '<tr><td><span id="sft-a-s20-01">sft-a-s20-01</span></td><td>50.0</td><td>7.50</td><td>1.5</td>' in page
    assert '<span id="gone-s20-02">' in page
    assert "<code>python -m x</code>" in page
    assert "two cores" in page
    assert "2 runs behind it" in page


def test_an_item_whose_file_is_gone_says_so(out, tmp_path):
    copy = tmp_path / "out"
    shutil.copytree(out, copy)
    (copy / "01_curves.png").unlink()
    page = report.write(copy).read_text()
    assert "Its file is not in out; execute 01_heterogeneous_overfitting again." in page
    assert "<img" not in page


def test_without_a_manifest_the_page_stands_too(out, tmp_path):
    copy = tmp_path / "out"
    shutil.copytree(out, copy)
    (copy / "manifest.json").unlink()
    assert "There is no manifest.json" in report.write(copy).read_text()


def test_the_first_page_has_a_picture_the_findings_and_a_mark_for_each_claim(tmp_path):
    folder = tmp_path / "out"
    page = study.Study("03_main_results", "smoke", out_dir=str(folder))
    for name, item, finding in (("later", "Table 2", "mSFT is ahead & more"), ("curves", "Fig. 2", "Peaks differ")):
        figure, axes = plt.subplots()
        page.figure(style.say(axes, finding), name, item=item, caption="c")
        plt.close(figure)
    claims = [
        ("mSFT over SFT", 1.8, 4.1, "1.98 to 6.30", "yes"),
        ("mSFT over IES", 1.2, -0.2, "-2.0 to 1.0", "cannot tell"),
    ]
    claims += [("mSFT over <x>", "lower", 3.0, "2.0 to 4.0", "no"), ("saved", 37.0, 8.0, "–", "yes")]
    columns = ["comparison", "paper (points)", "here (points)", "95 % interval", "same direction"]
    page.table(pd.DataFrame(claims, columns=columns).set_index("comparison"), "claims", item="Table 2", caption="c")
    text = report.write(folder).read_text(encoding="utf-8")
    summary = text[text.index('id="summary"') : text.index('id="overview"')]
    assert summary.count("<img") == 1
    assert 'alt="Peaks differ"' in summary and "<li>mSFT is ahead &amp; more" in summary
    rows = [re.sub(r"<[^>]*>", "|", line) for line in summary.splitlines() if line.startswith("<tr><td>mSFT")]
    assert [next(cell for cell in row.split("|") if cell.startswith(("✓", "?", "✗"))) for row in rows if row] == [
        "✓ shown", "? cannot tell", "✗ fails here",
    ]  # fmt: skip
    assert (
        "? no interval" in summary and "mSFT over &lt;x&gt;" in summary and "+4.1" in summary and ">lower<" in summary
    )
    assert "<code>python -m paper_figures.execute 03_main_results --profile smoke</code>" in text


def test_a_page_of_other_items_opens_with_what_it_has_and_names_the_parameters(tmp_path):
    folder = tmp_path / "out"
    page = study.Study("15_real_model", "smoke", out_dir=str(folder))
    for name, finding in (("loss", "Losses differ"), ("optima", "Optima move")):
        figure, axes = plt.subplots()
        page.figure(style.say(axes, finding), name, item=f"Fig. 2, {name}", caption="c")
        plt.close(figure)
    made = {
        "notebooks": {"15_real_model": {"status": "done", "seconds": 1.0, "execution": "t", "runs": []}},
        "runs": {},
    }
    facts = {"commit": "c", "machine": "m", "python": "3", "versions": {}}
    facts["command"] = "python -m paper_figures.execute 15 --profile smoke -p models ./m -p settings 'a=1 b=2' --jobs 1"
    (folder / "manifest.json").write_text(json.dumps({**made, "executions": {"t": facts}}))
    text = report.write(folder).read_text(encoding="utf-8")
    summary = text[text.index('id="summary"') : text.index('id="overview"')]
    assert 'alt="Losses differ"' in summary and "<li>Optima move" in summary
    command = (
        "python -m paper_figures.execute 15_real_model --profile smoke -p models ./m -p settings &#x27;a=1 b=2&#x27;"
    )
    assert f"<code>{command}</code>" in text


def test_nothing_to_report_is_a_clear_error(tmp_path, capsys):
    with pytest.raises(ConfigError, match="no notebook has left a table or figure in .*make reproduce"):
        report.write(tmp_path / "empty")
    assert report.main(["--out", str(tmp_path / "empty")]) == 2
    assert "nothing to report" in capsys.readouterr().err
    assert not (tmp_path / "empty").exists()


def test_the_command_writes_the_page_where_it_is_told(out, tmp_path, capsys):
    assert report.main(["--out", str(out), "--to", str(tmp_path / "new" / "page.html")]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "new" / "page.html")
    assert (tmp_path / "new" / "page.html").is_file()
    with pytest.raises(SystemExit):
        report.main(["--ot", "x"])
    assert "--ot" in capsys.readouterr().err


def test_in_a_browser_nothing_is_missing_and_the_page_does_not_scroll_sideways(page, tmp_path):
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    browser = next(filter(None, map(shutil.which, names)), None)
    if not browser:
        pytest.skip(f"no browser on this machine: none of {', '.join(names)} is on the PATH")
    (tmp_path / "page.html").write_text(page.replace("</body>", PROBE + "</body>"), encoding="utf-8")
    (tmp_path / "harness.html").write_text(HARNESS)
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr"]
    command += [f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=5000", "--dump-dom"]
    done = subprocess.run([*command, (tmp_path / "harness.html").as_uri()], capture_output=True, text=True, timeout=120)
    found = [json.loads(html.unescape(text)) for text in re.findall(r'<p class="probe">([^<]*)</p>', done.stdout)]
    assert sorted(seen["width"] for seen in found) == [390, 1280]
    for seen in found:
        assert seen["scroll"] <= seen["width"]
        assert (seen["images"], seen["missing"], seen["beyond"]) == (1, 0, [])
    assert [line for line in done.stderr.splitlines() if "CONSOLE" in line] == []
