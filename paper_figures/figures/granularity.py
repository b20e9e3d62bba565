"""Gain over SFT at the level of sub-categories: MedMCQA's 21 subjects in 11 broad groups (Fig. 7)."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from paper_figures import data, findings, reported_numbers
from paper_figures.figures import seeds
from paper_figures.style import COLUMN, colour, label, legend, pretty, say, signed

METHODS = ("msft", "ies")

# The paper names two of its 11 groups, 'Pharmacology' and 'Forensic, Psychiatry & Radiology'. The other nine are our
# choice: neighbouring subjects of a medical curriculum, each of the 21 once.  Names as in the mixture, less 'medmcqa_'.
GROUPS = {
    "Anatomy & Physiology": ["anatomy", "physiology"],
    "Biochemistry & Microbiology": ["biochemistry", "microbiology"],
    "Dental": ["dental"],
    "ENT & Ophthalmology": ["ent", "ophthalmology"],
    "Forensic, Psychiatry & Radiology": ["forensic_medicine", "psychiatry", "radiology"],
    "Gynaecology, Obstetrics & Pediatrics": ["gynaecology_obstetrics", "pediatrics"],
    "Medicine & Skin": ["medicine", "skin"],
    "Pathology": ["pathology"],
    "Pharmacology": ["pharmacology"],
    "Social & Preventive Medicine, Unknown": ["social_preventive_medicine", "unknown"],
    "Surgery, Anaesthesia & Orthopaedics": ["surgery", "anaesthesia", "orthopaedics"],
}
_PREFIX = "medmcqa_"


def needs(page) -> dict:
    """{method: RunConfig} of SFT, mSFT and IES on the profile's granular mixture, with the focus model."""
    return {method: page.config(method, mixture=page.granular) for method in ("sft", *METHODS)}


def broad_groups(tasks, groups_of_mixture: dict[str, list[str]]) -> dict[str, list[str]]:
    """{category of the figure: sub-datasets}.

    MedMCQA's subjects are summed up in GROUPS (those present); another mixture in its own groups where it has
    several, else every sub-dataset stands for itself.
    """
    tasks = list(tasks)
    known = {_PREFIX + name for names in GROUPS.values() for name in names}
    if known.issuperset(tasks):
        groups = {group: [_PREFIX + n for n in names if _PREFIX + n in tasks] for group, names in GROUPS.items()}
        return {group: names for group, names in groups.items() if names}
    return groups_of_mixture if len(groups_of_mixture) > 1 else {pretty(task): [task] for task in tasks}


def gains(runs) -> pd.DataFrame:
    """One row a sub-dataset and method: task, category, method, n (test items), sft and accuracy (percent, at each
    run's best overall checkpoint), gain (points over SFT)."""
    sft = runs["sft"]
    base = data.at_best(sft)
    sizes = sft.history.drop_duplicates("task").set_index("task").n
    groups = broad_groups(base.index, data.groups_of(sft))
    category = {task: group for group, tasks in groups.items() for task in tasks}
    rows = []
    for method in METHODS:
        accuracy = data.at_best(runs[method])
        for task in base.index:
            row = {"task": task, "category": category[task], "method": method, "n": int(sizes[task])}
            row |= {"sft": 100 * base[task], "accuracy": 100 * accuracy[task]}
            rows.append({**row, "gain": 100 * (accuracy[task] - base[task])})
    return pd.DataFrame(rows)


BY_CATEGORY_CAPTION = (
    "Gain over SFT in points of test accuracy by category, with its number of sub-datasets and of test items."
)


def by_category(table: pd.DataFrame) -> pd.DataFrame:
    """Gain over SFT in points, one row a category and one column a method, best gain of mSFT first.

    table: as gains gives it. A category is the mean over its sub-datasets; column 'sub-datasets' counts them, 'items'
    their test items. The last row, 'mean', is that over all sub-datasets, not over categories.
    """
    shown = table.pivot_table(index="category", columns="method", values="gain", aggfunc="mean", sort=False)
    one = table[table.method == METHODS[0]].groupby("category", sort=False).n
    shown = shown[list(METHODS)].assign(count=one.count(), items=one.sum())
    shown = shown.sort_values(list(METHODS), ascending=False, kind="stable")
    means = table.groupby("method").gain.mean()
    shown.loc["mean"] = [*(means[method] for method in METHODS), shown["count"].sum(), shown["items"].sum()]
    names = {method: label(method) for method in METHODS} | {"count": "sub-datasets"}
    return shown.astype({"count": int, "items": int}).rename(columns=names).rename_axis(index="category", columns=None)


BARS_CAPTION = (
    "Gain over SFT, in points of test accuracy, of mSFT and IES in each category, sorted by the gain of mSFT, with 95 % intervals over "
    "the test items; categories in which neither differs from SFT share a row; the mean is that over sub-datasets. Every method "
    "stands at its own best overall checkpoint."
)


def intervals(runs, draws: int = findings.DRAWS) -> pd.DataFrame:
    """95 % intervals of the gains over SFT over the test items: rows as `by_category`, columns (method, 'low' or 'high')."""
    table, rows = gains(runs), {}
    members = {name: list(part.task.unique()) for name, part in table.groupby("category", sort=False)}
    correct = {method: findings.correct_at_best(run) for method, run in runs.items()}
    for method in METHODS:
        differences = findings.item_differences([(correct[method], correct["sft"])])
        for name, tasks in {**members, "mean": list(differences)}.items():
            low, high = findings.bootstrap({task: differences[task] for task in tasks}, draws).items
            rows.setdefault(name, {}).update({(label(method), "low"): low, (label(method), "high"): high})
    return pd.DataFrame.from_dict(rows, orient="index")


def points(table: pd.DataFrame, spans: pd.DataFrame, ax=None):
    """Fig. 7: gain over SFT of mSFT and IES in each category, best gain of mSFT on top, the mean below all.

    table: as by_category gives it.  spans: as intervals does. Categories without any difference are one row. Returns the axes.
    """
    names = [label(method) for method in METHODS]
    level = (table[names] == 0).all(axis=1) & (table.index != "mean")
    shown = table[~level]
    if level.any():
        folded = pd.DataFrame({name: [0.0] for name in names}, index=[f"{level.sum()} more: as SFT"])
        shown = pd.concat([shown.drop(index="mean"), folded, shown.loc[["mean"]]])
    if ax is None:
        _, ax = plt.subplots(figsize=(COLUMN, 0.24 * len(shown) + 0.6), layout="constrained")
    # the mean stands apart from what it is the mean of
    y = np.append(np.arange(len(shown) - 1), len(shown) - 0.6)
    ends = spans.reindex(shown.index)
    for place, method in enumerate(METHODS):
        values, low, high = shown[label(method)], ends[label(method), "low"], ends[label(method), "high"]
        look = {"fmt": "o", "ms": 3, "lw": 0.8, "capsize": 1.5, "color": colour(method), "label": label(method)}
        whiskers = ((values - low).fillna(0), (high - values).fillna(0))
        ax.errorbar(values, y + 0.38 * (place - 0.5), xerr=whiskers, **look)
    ax.axvline(0, color=colour("sft"), lw=1, label=label("sft"))
    ax.axhline(len(shown) - 1.3, color="0.6", lw=0.7)
    # the gains themselves stand in a column of their own, clear of whiskers
    for place, (_, row) in zip(y, shown.iterrows(), strict=True):
        for number, method in enumerate(METHODS):
            text = f"{label(method)} {signed(row[label(method)], 1)}"
            where = {"xycoords": ("axes fraction", "data"), "va": "center_baseline", "color": colour(method)}
            ax.annotate(text, (1.01, place + 0.38 * (number - 0.5)), annotation_clip=False, **where)
    ax.set_yticks(y, shown.index)
    ax.invert_yaxis()
    ax.margins(y=0.06)
    low, high = ax.get_xlim()
    ax.set_xlim(min(low, -0.04 * high), high)  # SFT's line stands clear of the axis
    ax.grid(axis="y", visible=False)
    ax.set_xlabel("gain over SFT (points of test accuracy)")
    legend(ax.figure, *ax.get_legend_handles_labels())
    means = {name: (table.loc["mean", name], *spans.loc["mean", name][["low", "high"]]) for name in names}
    # no item differs where the mean and both ends are 0
    level = [name for name, span in means.items() if not any(span)]
    words = [
        f"{name} equals SFT"
        if name in level
        else f"{name} {signed(mean, 1)} points ({signed(low, 1)} to {signed(high, 1)})"
        for name, (mean, low, high) in means.items()
    ]
    open_ = {name: low <= 0 <= high for name, (_, low, high) in means.items() if name not in level}
    shown_for = [name for name in open_ if not open_[name]]
    verdict = f", shown for {shown_for[0]} alone" if shown_for else ", cannot tell from 0"
    return say(ax, f"Mean gain over SFT{verdict * any(open_.values())}: {', '.join(words)}")


AGAINST_PAPER_CAPTION = (
    "Gains over SFT that section 4.4 of the paper names, in points, and what was measured here."
    + reported_numbers.told("the test items, these very runs")
)


def against_paper(table: pd.DataFrame, spans: pd.DataFrame) -> pd.DataFrame:
    """The gains that the paper names beside ours: the means, and its two categories where the mixture has them.

    table: as by_category gives it.  spans: as intervals does.
    """
    named = {
        ("mean", "msft"): "sub-categories: mSFT over SFT",
        ("mean", "ies"): "sub-categories: IES over SFT",
        ("Pharmacology", "msft"): "MedMCQA Pharmacology",
        ("Forensic, Psychiatry & Radiology", "msft"): "MedMCQA Forensic, Psychiatry & Radiology",
    }
    pairs = {}
    for (category, method), words in named.items():
        if category in table.index:
            name = label(method)
            ours = table.loc[category, name], *spans.loc[category, name][["low", "high"]]
            pairs[f"{name} over SFT, {category}"] = (reported_numbers.claim(words), *ours)
    return reported_numbers.directions(pairs)


MANY_SEEDS_CAPTION = (
    "Gain of mSFT over SFT (points) on confirmation items, on which nothing was chosen, paired over more seeds: what "
    "`benchmarks/evidence.py` left in benchmarks/results for the generated mixture, whose sub-datasets that are learnt late "
    "are small, and for the same with all of one size. Beside it the paper's mean gain, of one seed."
    + reported_numbers.told("the seeds (paired t)")
)


def many_seeds(page) -> pd.DataFrame | None:
    """mSFT's gain over more seeds by direction, with sub-datasets as they are and all of one size; None where there is none."""
    theirs = reported_numbers.claim("sub-categories: mSFT over SFT")
    pairs = seeds.evidence(page, "evidence_tiny-21", theirs)
    pairs |= seeds.evidence(page, "evidence_tiny-21-equal", theirs, ", all of one size")
    return reported_numbers.directions(pairs) if pairs else None


def finding(runs) -> str:
    """Whether mSFT gains over SFT, in how many categories, IES beside it, and how much SFT leaves to gain."""
    ours, rival = (findings.difference([(runs[method], runs["sft"])]) for method in METHODS)
    room = 100 * (1 - data.at_best(runs["sft"]).mean())
    each = by_category(gains(runs))[label("msft")].drop("mean")
    return (
        f"{findings.sentence(ours)} It is above SFT in {(each > 0).sum()} of {len(each)} categories and below in {(each < 0).sum()}. IES differs from SFT by {rival.points:+.1f} points ({rival.low:+.1f} to {rival.high:+.1f}), "
        f"and SFT leaves {room:.1f} points to gain at the most; one seed and few items a category say little of a single one."
    )
