"""Where notebooks write: figures as PDF and PNG, tables as CSV, Markdown and LaTeX (booktabs)."""

from pathlib import Path

import pandas as pd
from matplotlib.transforms import Bbox


def save_figure(figure, out_dir: str | Path, name: str) -> Path:
    """Writes <out_dir>/<name>.png and .pdf; returns the PNG's path."""
    folder = Path(out_dir)
    folder.mkdir(parents=True, exist_ok=True)
    # no date in the file: equal data give equal bytes
    for kind, metadata in (("pdf", {"CreationDate": None}), ("png", {"Software": None})):
        figure.savefig(folder / f"{name}.{kind}", bbox_inches=_frame(figure), metadata=metadata)
    return folder / f"{name}.png"


def _frame(figure) -> Bbox:
    """The figure's own width, so that its letters keep their size, by the height of what is drawn; all of it in inches."""
    figure.draw_without_rendering()
    drawn, edge = figure.get_tightbbox(), 0.04
    x0, x1 = min(0, drawn.x0), max(figure.get_figwidth(), drawn.x1)
    return Bbox.from_extents(x0, drawn.y0 - edge, x1, drawn.y1 + edge)


def save_table(table: pd.DataFrame, out_dir: str | Path, name: str, decimals: int = 1) -> Path:
    """Writes <out_dir>/<name>.csv, .md and .tex; returns the CSV's path."""
    folder = Path(out_dir)
    folder.mkdir(parents=True, exist_ok=True)
    table.to_csv(folder / f"{name}.csv", float_format="%.6g")
    (folder / f"{name}.md").write_text(markdown(table, decimals), encoding="utf-8")
    (folder / f"{name}.tex").write_text(latex(table, decimals), encoding="utf-8")
    return folder / f"{name}.csv"


def number(value: float, decimals: int) -> str:
    """A number as tables show it: a dash for a missing one, and never -0.0."""
    return "–" if pd.isna(value) else f"{round(value, decimals) + 0.0:.{decimals}f}"


def _cells(table: pd.DataFrame, decimals: int) -> tuple[list[str], list[list[str]]]:
    flat = table.reset_index() if table.index.name or table.index.nlevels > 1 else table

    def text(value) -> str:
        return number(value, decimals) if isinstance(value, float) else str(value)

    return [str(c) for c in flat.columns], [[text(v) for v in row] for row in flat.itertuples(index=False)]


def markdown(table: pd.DataFrame, decimals: int = 1) -> str:
    """The table as a Markdown table."""
    head, rows = _cells(table, decimals)
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)]) + "\n"


def latex(table: pd.DataFrame, decimals: int = 1) -> str:
    """The table in LaTeX with booktabs rules."""
    head, rows = _cells(table, decimals)

    def line(cells: list[str]) -> str:
        safe = [c.replace("&", r"\&").replace("%", r"\%").replace("_", r"\_").replace("–", "--") for c in cells]
        return " & ".join(safe) + r" \\"

    body = [r"\begin{tabular}{l" + "r" * (len(head) - 1) + "}", r"\toprule", line(head), r"\midrule"]
    return "\n".join([*body, *map(line, rows), r"\bottomrule", r"\end{tabular}"]) + "\n"
