"""A notebook's side of things: the runs it needs, trained or read, and the place of its tables and figures.

page = study.start("01_heterogeneous_overfitting", globals())
runs = page.train(overfitting.needs(page))
page.figure(overfitting.curves(runs), "curves", item="Fig. 2", caption="...")
"""

import json
import re
from collections.abc import Collection, Mapping
from pathlib import Path

import pandas as pd

from msft import RunConfig, methods
from msft.errors import ConfigError, DataError, ModelError, RunError, nearest, together, unknown
from msft.launch import local
from msft.paths import check_folder, usable
from msft.results.run import Run, matching
from msft.store.files import write_atomic
from paper_figures import cost, output, profiles, style
from paper_figures.figures import confirmed

# what a notebook may be told beside the parameters that it declares, also as words of `settings`
OPTIONS = {"models": "", "mixture": "", "data_dir": "", "allow_cpu": False}
_DECLARED = ("profile", "runs_dir", "out_dir", "settings")


def start(notebook: str, variables: Mapping, *own: str) -> "Study":
    """The Study of a notebook from its variables, its parameters and what papermill gave it.

    own: parameters that the notebook uses itself. A variable that nobody uses, such as a misspelt parameter, which
    papermill lets through, is named with the nearest. Raises ConfigError for settings that cannot be read.
    """
    known = [*_DECLARED, *OPTIONS, *own]
    for name, value in variables.items():
        is_value = isinstance(value, str | int | float | list | tuple | dict | None) and name not in ("In", "Out")
        if not name.startswith("_") and is_value and name not in known:
            print(f"The parameter {name!r} is not used by this notebook.{nearest(name, known)}")
    names = [name for name in (*_DECLARED, *OPTIONS) if name in variables]
    return Study(notebook, **{name: variables[name] for name in names})


class MissingRuns(RunError):
    """Runs of the paper's size are missing, and this machine does not train them."""


class Study:
    """One notebook in one profile.

    models: comma-separated names in place of the profile's; the first is then the focus too.
    mixture: in place of every mixture of the profile.  data_dir: a folder in hub format in place of the hub.
    settings: more settings of every run as one text, such as "train_size=40 sft.epochs=1"; 'method.name' is a
    method's own parameter; seed=30 is the first of the profile's seeds, seed=30,40 are all of them.
    allow_cpu: train the paper's profile without a GPU too.
    Raises ConfigError for settings that cannot be read.
    """

    def __init__(
        self,
        notebook: str,
        profile: str = "tiny",
        runs_dir: str = "runs",
        out_dir: str = "",
        *,
        models: str = "",
        mixture: str = "",
        data_dir: str = "",
        settings: str = "",
        allow_cpu: bool = False,
    ):
        chosen = profiles.profile(profile)
        told = {"runs_dir": runs_dir, "out_dir": out_dir, "models": models, "mixture": mixture, "data_dir": data_dir}
        told = {
            name: _text(name, value) for name, value in {**told, "settings": settings, "allow_cpu": allow_cpu}.items()
        }
        more, params = _read(
            told.pop("settings"), [name for name in OPTIONS if told[name].lower() not in ("", "false")]
        )
        told |= {name: more.pop(name) for name in OPTIONS if name in more}
        runs_dir, out_dir, models, mixture, data_dir, allow_cpu = told.values()
        if allow_cpu.lower() not in ("", "true", "false"):
            raise ConfigError(f"parameter allow_cpu is {allow_cpu!r}; give true or false")
        self.notebook, self.profile, self.runs_dir = notebook, profile, Path(usable(runs_dir or "runs"))
        self.out_dir = Path(usable(out_dir) or f"paper_figures/out/{profile}")
        check_folder(self.out_dir, "out_dir")
        self.models = list(dict.fromkeys(name.strip() for name in models.split(",") if name.strip())) or list(
            chosen["models"]
        )
        self.focus, self.example = (self.models[0] if models else chosen[name] for name in ("focus", "example"))
        self.swept = [self.focus] if models else list(chosen["swept"])
        self.mixture = mixture or chosen["mixture"]
        self.mixtures = {count: mixture or name for count, name in chosen["mixtures"].items()}
        self.granular = mixture or chosen["granular"]
        self.seeds, self.budgets, self.branch = list(chosen["seeds"]), list(chosen["budgets"]), chosen["branch"]
        if "seed" in more:
            self.seeds = _seeds(more.pop("seed"), self.seeds)
        self.allow_cpu = allow_cpu.lower() == "true"
        self.settings, self.params = more, params
        if data_dir:
            self.settings["data_dir"] = data_dir
        self.used: list[Run] = []
        self._said: set[str] = set()
        self._asked: set[str] = set()  # methods
        self._shown: list[str] = []
        style.use_style()

    @property
    def is_paper(self) -> bool:
        """Whether the measured numbers have the paper's scale, so that its reported ones can stand beside them."""
        return self.profile == "paper"

    def config(
        self, method: str, *, model: str = "", mixture: str = "", seed: int = 0, params=None, varied=None, **settings
    ):
        """The RunConfig of a method in this profile; '' and 0 stand for the profile's focus, mixture, first seed.

        params: the page's own, behind those of the settings text.  varied: parameters that the page compares, before them,
        as are its settings; a word of the text that such a run therefore does not follow is named.
        """
        asked, varied = self.params.get(method, {}), varied or {}
        ignored = [f"{method}.{name}" for name in asked.keys() & varied.keys()]
        for name in sorted([*ignored, *(self.settings.keys() & settings.keys())]):
            self._say(
                f"The word {name} of the settings does not hold for the runs where this page chooses {name} itself."
            )
        self._asked.add(method)
        own = {**(params or {}), **asked, **varied}
        given = {**self.settings, **settings, "params": own, "seed": seed or self.seeds[0]}
        return profiles.config(
            self.profile, method, model=model or self.focus, mixture=mixture or self.mixture, **given
        )

    def train(self, needs: Mapping[object, RunConfig], on_evaluation=None) -> dict[object, Run]:
        """{key: finished run}; what is missing is trained. Where the model or the data is not at hand, finished runs with the
        same settings are read.

        on_evaluation: a watcher, such as live.LiveFigure(); what is missing is then trained one after the other.
        Raises MissingRuns in the paper profile on a machine without a GPU, or without the data or the model, with
        the commands that train what is missing and their cost.
        """
        for method in self.params.keys() - self._asked:
            self._say(f"The settings have words of {method}, and no run of this page is of this method.")
        runs, why = None, "there is no GPU"
        if self.profile == "laptop":
            print(cost.on_this_machine(needs.values(), self.runs_dir), flush=True)
        if not self.is_paper or self.allow_cpu or _has_gpu():
            try:
                trained = local.run_all(list(needs.values()), self.runs_dir, on_evaluation=on_evaluation)
                runs = dict(zip(needs, trained, strict=True))
            except (DataError, ModelError) as error:
                why = str(error)
                if not self.is_paper and set(self._with_these_settings(needs)) != set(needs):
                    raise
        if runs is None:
            runs = self._with_these_settings(needs)
            if missing := {key: config for key, config in needs.items() if key not in runs}:
                raise self._missing(missing, needs, why)
            print(f"Read by their settings alone, since {why}", flush=True)
        self.used = list({run.directory: run for run in [*self.used, *runs.values()]}.values())
        return runs

    def _say(self, text: str) -> None:
        """Once a page."""
        if text not in self._said:
            self._said.add(text)
            print(text, flush=True)

    def _with_these_settings(self, needs: Mapping) -> dict:
        known = zip(needs, matching(list(needs.values()), self.runs_dir), strict=True)
        return {key: run for key, run in known if run and run.status == "finished"}

    def _missing(self, missing: Mapping, needs: Mapping, why: str) -> MissingRuns:
        # several keys of a notebook may stand for one run
        needed = len(set(needs.values()))
        return MissingRuns(cost.what_is_missing(missing.values(), needed, self.runs_dir, why))

    def figure(self, axes, name: str, *, item: str, caption: str):
        """Saves a figure as PNG and PDF and tells the report of it, its finding (style.say) too; the cell shows it.

        axes: an axes, an array of them, or a figure.  item: what it is in the paper, such as "Fig. 2".
        """
        figure = style.figure_of(axes)
        output.save_figure(figure, self.out_dir, self._name(name))
        self._register("figure", name, item, caption, finding=style.said(figure))

    def table(self, table: pd.DataFrame, name: str, *, item: str, caption: str, decimals: int = 1):
        """Saves a table as CSV, Markdown and LaTeX and tells the report of it; returns it styled for the notebook."""
        output.save_table(table, self.out_dir, self._name(name), decimals)
        floats = table.select_dtypes("float").columns
        self._register("table", name, item, caption, decimals=decimals, rounded=[str(column) for column in floats])
        return table.style.format(dict.fromkeys(floats, lambda value: output.number(value, decimals)), na_rep="–")

    def confirmed(self, item: str):
        """The table of this page's runs on items that nothing was chosen on (figures/confirmed.py); None without such."""
        table = confirmed.table(self.used)
        return self.table(table, "confirmed", item=item, caption=confirmed.CAPTION) if len(table) else None

    def histories(self) -> None:
        """Copies what the numbers of this page come from, a folder a run, to <out_dir>/histories: no weights, no answers.

        A Study with that folder as its runs_dir draws the page again where neither the model nor the data is at hand.
        """
        for run in self.used:
            folder = self.out_dir / "histories" / run.directory.name
            folder.mkdir(parents=True, exist_ok=True)
            for name in ("history.csv", "journal.jsonl", "run.json", "result.json"):
                lines = (run.directory / name).read_text(encoding="utf-8").splitlines(keepends=True)
                if name == "journal.jsonl":  # what a killed run goes on from is most of it, and of no use any more
                    lines = [line for line in lines if json.loads(line)["entry"]["kind"] != "saved"]
                write_atomic(folder / name, "".join(lines))

    def _name(self, name: str) -> str:
        head = self.notebook.split("_")[0]
        return f"{head if head.isdigit() else self.notebook}_{name}"

    def _register(self, kind: str, name: str, item: str, caption: str, **more) -> None:
        if name not in self._shown:
            self._shown.append(name)
        folder = self.out_dir / "items"
        folder.mkdir(parents=True, exist_ok=True)
        entry = {"kind": kind, "name": self._name(name), "item": item, "caption": caption, "notebook": self.notebook}
        entry |= {"place": self._shown.index(name), "profile": self.profile, **more}
        entry["runs"] = sorted(run.directory.name for run in self.used)
        write_atomic(folder / f"{self._name(name)}.json", json.dumps(entry, indent=1, ensure_ascii=False) + "\n")


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def _text(name: str, value) -> str:
    """A parameter as text; papermill hands a folder named 2024 over as a number, and an empty one as None."""
    is_text = isinstance(value, str | None) if name == "settings" else not isinstance(value, list | tuple | dict)
    if not is_text:
        raise ConfigError(f"parameter {name} is {value!r}; give a text")
    if isinstance(value, int | float) and name != "allow_cpu":  # 020, 1e3 and 0.10 are other texts by now
        print(
            f"The parameter {name} came as {value!r}, no text: {str(value)!r} is meant. papermill's -r hands texts over."
        )
    return "" if value is None else str(value)


def _seeds(text: str, usual: list[int]) -> list[int]:
    """The seeds of a page: one takes the first place among as many as usual, several with commas stand for all."""
    told = list(map(int, text.split(",")))
    return told if len(told) > 1 else [*told, *(seed for seed in usual if seed != told[0])][: len(usual)]


# settings that a notebook chooses itself, and what to give in their place
_CHOSEN = {
    "model": "give models=NAME for every run of the page",
    "method": "each notebook has its own methods",
    "params": "give METHOD.NAME=VALUE, such as sft.epochs=2",
}


def _read(text: str, given: Collection[str]) -> tuple[dict, dict[str, dict]]:
    """(settings, {method: its parameters}) of a text like "train_size=40 sft.epochs=1".

    given: names that have a value already, as parameters of the notebook.
    """
    settings, params, problems = {}, {}, []
    folder = str(Path(__file__).parent / "methods")
    known = methods.available(folder)
    for word in text.split():
        name, sign, value = word.partition("=")
        method, dot, own = name.rpartition(".")
        place = params.setdefault(method, {}) if dot else settings
        if not sign or not name or not value:
            problems.append(f"{word!r} is not NAME=VALUE")
        elif own in place or name in given:
            problems.append(f"{name} is given twice; give it once")
        elif name in _CHOSEN:
            problems.append(f"{word!r}: {_CHOSEN[name]}")
        elif name == "seed" and not re.fullmatch(r"[1-9]\d*(,[1-9]\d*)*", value):
            problems.append(f"{word!r}: give a whole number from 1 on, or several with commas")
        elif name == "seed" and len(set(value.split(","))) <= value.count(","):
            problems.append(f"{word!r}: a seed stands twice")
        place[own] = value
    for method, own in params.items():
        problems += (
            methods.check_params(method, own, folder)[1] if method in known else [unknown("method", method, known)]
        )
    if problems:
        raise ConfigError(together("settings cannot be read:", problems))
    return settings, params
