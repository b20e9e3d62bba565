"""What each command does with its flags (options.py). Each returns the exit code."""

import dataclasses
import json
import os
import sys
from pathlib import Path

import pandas as pd

from msft import adapter, distributed, methods, names
from msft.cli import options
from msft.config import RunConfig
from msft.cost import describe
from msft.cost import plan as costs
from msft.errors import ConfigError, RunError, together, unknown
from msft.launch import slurm
from msft.launch.accelerated import unused_keys
from msft.launch.grid import read_grid
from msft.launch.status import line_of, rows_of, runs_of
from msft.paths import check_folder, usable
from msft.results.progress import say_left_out
from msft.results.run import Run, load_runs
from msft.store.curve import overall

# what of a run's settings a measurement depends on
_EVALUATION_SETTINGS = {"mixture", "precision", "eval_precision", "max_tokens", "max_prompt_tokens", "max_new_tokens"}
_EVALUATION_SETTINGS |= {"eval_batch_size", "data_dir", "revision", "trust_remote_code", "device", "threads"}
_EVALUATION_SETTINGS |= {"train_size", "test_size", "validation_size", "confirmation_size"}


def run(flags: options.Run) -> int:
    """Trains a run, goes on with it, or reads it."""
    config = options.config_of(flags)
    from msft import runs  # it loads torch

    if (unused := unused_keys(config)) and distributed.is_main():
        print(together("of accelerate's configuration a run does not use:", unused), file=sys.stderr)
    done = runs.run(config, flags.runs_dir, progress=not flags.quiet, wait=not flags.no_wait)
    if distributed.is_main():
        best = done.best
        print(f"{done.directory}: accuracy {best.accuracy:.4f} at epoch {best.path_epoch:.2f}; checkpoint {best.path}")
    return 0


def plan(flags: options.Plan) -> int:
    """Says what a run or a grid costs."""
    if flags.grid:
        words = [f"--{name.replace('_', '-')}" for name in (*flags.given, *(["config"] if flags.config else []))]
        flags.check(*(f"{word} is for one run; a grid has its settings in its file" for word in words))
        configs = read_grid(flags.grid).runs
    else:
        configs = (options.config_of(flags),)
    rates = costs.rates_of(load_runs(flags.runs_dir), flags.utilisation, flags.peak)
    estimates = costs.plan(configs, flags.runs_dir, rates, flags.card)
    if estimates[0].problem and not flags.grid and estimates[0].state != "finished":  # that is all there is to say
        raise ConfigError(f"no estimate: {estimates[0].problem}")
    if flags.json:
        print(json.dumps([describe.as_dict(estimate) for estimate in estimates], indent=1))
    else:
        print(describe.report(estimates, flags.runs_dir, rates, flags.slots, flags.card))
    return 0


def grid(flags: options.Grid) -> int:
    """Shows a grid and, with --submit, trains what is not finished."""
    flags.check(*(f"--{name} is for --submit slurm" for name in flags.given if flags.submit == "local"))
    from msft.launch import local

    runs_dir, names_of_all = flags.runs_dir, ("data_dir", "device", "token_budget")
    whole = read_grid(flags.grid, {name: getattr(flags, name) for name in names_of_all})
    jobs = slurm.read_options({**whole.slurm, **flags.given})
    rates = costs.rates_of(load_runs(runs_dir))
    estimates = costs.plan(whole.runs, runs_dir, rates)
    # what another launcher is at is waited for here, and left to it on a cluster
    done = ("finished", "running") if flags.submit == "slurm" else ("finished",)
    todo = [e for e in estimates if e.state not in done]
    print(describe.report(estimates, runs_dir, rates, flags.slots or 1))
    if not flags.submit:
        print("\nNothing was started. --submit local trains the runs here, --submit slurm on a cluster.")
        return 0
    sys.stdout.flush()
    if not todo:
        return 0
    check_folder(Path(runs_dir), "runs_dir")
    needed, free = costs.disk_needed(todo, flags.slots or 1), costs.disk_free(runs_dir)
    if needed > free and not flags.any_disk:
        what = f"{describe.bytes_text(needed)} of disk are estimated and {describe.bytes_text(free)} are free for {runs_dir}"
        raise RunError(f"{what}: free space, give another --runs-dir, or --any-disk to start all the same")
    todo.sort(key=lambda e: -(e.expected.flops["total"] if e.expected else float("inf")))  # the longest first
    configs = [e.config for e in todo]
    if flags.submit == "slurm":
        for config, job in zip(configs, slurm.submit(configs, runs_dir, jobs), strict=True):
            print(f"job {job.job_id}: {config.method} {config.model} {config.mixture} seed {config.seed}")
        return 0
    slots = flags.slots or min(map(local.slots_of, configs))
    problems = local.in_processes(configs, local.run_names(configs), runs_dir, slots)
    if problems:
        raise RunError(together(f"{len(problems)} of {len(configs)} runs failed:", problems))
    print(f"{len(configs)} runs are finished in {runs_dir}")
    return 0


def status(flags: options.Status) -> int:
    """Lists the runs of a folder; 1 where one is damaged."""
    flags.check()
    if not (os.path.isdir(flags.runs_dir) and os.access(flags.runs_dir, os.R_OK | os.X_OK)):
        raise ConfigError(f"runs_dir {flags.runs_dir!r} is no folder that can be read; give a folder of runs")
    rows = rows_of(runs_of(flags.runs_dir))
    damaged = [row for row in rows if row["state"] == "damaged"]
    for text in [json.dumps(rows, indent=1)] if flags.json else map(line_of, rows):
        print(text)
    for row in damaged:
        print(row["why"], file=sys.stderr)
    if not rows:
        print(f"{flags.runs_dir} holds no run; give a folder of runs", file=sys.stderr)
    return 1 if damaged else 0


def _as_in_its_run(flags: options.Eval):
    """(Prepared for a model to be measured, the folder of its adapter or None). What the flags leave open is as in the run
    that the model lies in, where there is one; else as the model is stored."""
    from msft import runs

    place = Path(os.path.realpath(usable(flags.model)))  # '.' and a link lie in the run too
    run = Run(place.parent)
    is_of_run = place.is_dir() and (run.directory / "run.json").is_file()
    of_run = run.about["config"] if is_of_run else {"mixture": "tiny"}
    values = {**of_run, **{name: value for name, value in vars(flags).items() if value is not None}}
    values |= {"eval_precision": None} if flags.precision else {}
    values = {name: values[name] for name in _EVALUATION_SETTINGS if values.get(name) is not None}
    is_adapter = bool(of_run.get("adapter")) and (place / adapter.FILE).is_file()
    if is_adapter:
        adapter.available()
        values |= {name: of_run[name] for name in ("model", "model_revision")}
    prepared = runs.prepare(RunConfig(**{"model": flags.model, **values}, method="sft"))
    if "precision" not in values:
        dtype = names.load_architecture(prepared.source, prepared.config).dtype
        precision = "bf16" if str(dtype) == "torch.bfloat16" else "fp32"
        prepared = dataclasses.replace(prepared, config=dataclasses.replace(prepared.config, precision=precision))
    if is_adapter:
        names.check_base(run.about.get("model", {}), prepared.source, prepared.config.model_revision)
    is_same = is_of_run and prepared.config.mixture == of_run["mixture"]
    if is_same and prepared.mixture.fingerprint() != run.about["mixture"].get("fingerprint"):
        print(f"mixture {prepared.config.mixture} has other data now than {run.directory} had", file=sys.stderr)
    return prepared, place if is_adapter else None


def evaluate(flags: options.Eval) -> int:
    """Measures a model without training, as the run that it lies in measured it where there is one."""
    flags.check()
    prepared, adapted = _as_in_its_run(flags)
    _, mixture = prepared.tokens()
    model, config = prepared.load_model(), prepared.config
    if adapted:  # measured where it was trained: beside its base model's weights, not added to them
        model = adapter.loaded(model, adapted).get_base_model()
    say_left_out(mixture)
    lengths = f"{config.max_prompt_tokens} prompt and {config.max_new_tokens} new tokens at most"
    print(f"mixture {config.mixture}, {config.answers}, {lengths}", file=sys.stderr)
    if mixture.judges:
        print(f"not asked, only watched in runs: {', '.join(j.label for j in mixture.judges)}", file=sys.stderr)
    from msft.packing.products import served

    evaluator = prepared.evaluator(model, mixture, "test")
    with served(model, config):
        scores = evaluator.evaluate()
    table = pd.DataFrame([{"task": task, "accuracy": s.accuracy, "n": s.n} for task, s in scores.items()])
    print(table.to_string(index=False))
    apart = [task for task, score in scores.items() if score.on_own_scale]
    of_tasks = table.set_index("task").to_dict()
    print(f"accuracy of all items {overall(of_tasks['accuracy'], of_tasks['n'], apart):.4f}")
    return 0


def mixture(flags: options.Mixture) -> int:
    """Says what a run on a mixture would train and test on, what is left out, and how its first examples read."""
    flags.check(*([] if flags.action in ("", "check") else [unknown("action", flags.action, ["check"])]))
    from msft import runs
    from msft.data import overview

    values = {name: value for name, value in vars(flags).items() if name in _EVALUATION_SETTINGS and value is not None}
    prepared = runs.prepare(RunConfig(**values, method="sft", model=flags.model))
    examples, whole = prepared.tokens()
    lengths = {name: [len(row.ids) for row in rows] for name, rows in examples.items()}
    print(overview.counts(whole, lengths).to_string(float_format="%.1f"))
    for sub in whole:
        for reason, count in sub.left_out.items() or [("nothing", 0)]:
            print(f"{sub.name}: left out: {f'{count}, ' * bool(count)}{reason}")
        if sub.judge:
            print(f"{sub.name}: judged by {sub.judge.label}, {sub.judge.n} items")
    for judge in whole.judges:
        print(f"only watched: {judge.label}, {judge.n} items")
    print(f"\n{overview.rendered(whole, lengths)}")
    return 0


def export(flags: options.Export) -> int:
    """Writes a finished run's best checkpoint for others to load."""
    flags.check(*(["--public is for --push"] if flags.public and not flags.push else []))
    from msft.results.export import export

    as_asked = {"push": flags.push, "dtype": flags.dtype or "", "private": not flags.public, "merge": flags.merge}
    print(export(flags.run, flags.target, **as_asked))
    return 0


def list_methods(flags: options.Methods) -> int:
    """Lists the methods and their parameters."""
    flags.check()
    folder = flags.methods_dir
    for name in methods.available(folder):
        module = methods.load(name, folder)
        print(f"{name}: {((module.__doc__ or '').strip() or 'without a docstring').splitlines()[0]}")
        defaults, _ = methods.check_params(name, {}, folder)
        for field in dataclasses.fields(module.Params):
            print(f"    {field.name} = {defaults.get(field.name)!r}: {field.metadata.get('doc', '')}")
    return 0


COMMANDS = {
    "run": (options.Run, run),
    "plan": (options.Plan, plan),
    "grid": (options.Grid, grid),
    "status": (options.Status, status),
    "eval": (options.Eval, evaluate),
    "export": (options.Export, export),
    "mixture": (options.Mixture, mixture),
    "methods": (options.Methods, list_methods),
}
