"""The command line: python -m msft run | eval | methods | status | report.

python -m msft run --method msft --model tiny-qwen2 --mixture tiny --params budget=3
python -m msft run --config settings.yaml --seed 30
"""

import argparse
import dataclasses
import sys

from msft import methods
from msft.config import RunConfig, read_yaml
from msft.errors import ConfigError, MsftError, RunError, nearest, unknown
from msft.settings import describe


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="msft", description="Train mixtures with an early stop for each sub-dataset.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="run | eval | methods | status | report")
    run = commands.add_parser(
        "run", allow_abbrev=False, help="train a run, go on with it, or read it when it is finished"
    )
    run.add_argument("--config", metavar="FILE", help="YAML with settings; flags override it")
    run.add_argument("--runs-dir", default="runs", metavar="DIR", help="folder of run directories (default: runs)")
    run.add_argument("--no-wait", action="store_true", help="fail at once where another process is at the same run")
    run.add_argument("--quiet", action="store_true", help="print the result only")
    for field in dataclasses.fields(RunConfig):
        flag, meta = "--" + field.name.replace("_", "-"), field.metadata
        if field.name == "params":
            run.add_argument(flag, nargs="+", metavar="NAME=VALUE", help=meta["doc"])
            continue
        default = "the model's own" if field.default is None else field.default
        choices = f"; one of {', '.join(meta['choices'])}" if meta["choices"] else ""
        run.add_argument(flag, metavar="VALUE", help=f"{meta['doc']}{choices} (default: {default})".replace("%", "%%"))
    listed = commands.add_parser("methods", help="list the methods and their parameters")
    listed.add_argument("--methods-dir", metavar="DIR", help="a folder with methods of your own")
    evaluate = commands.add_parser("eval", allow_abbrev=False, help="measure a model, five-shot, without training")
    evaluate.add_argument("model", help="tiny name, hub id or local folder, such as <run>/best")
    evaluate.add_argument("--mixture", default="tiny", help="whose test sets, for the paper's protocol (default: tiny)")
    evaluate.add_argument("--data-dir", metavar="DIR", help="folder in hub format that stands in for the hub")
    evaluate.add_argument(
        "--protocol",
        default="generate",
        choices=("generate", "harness"),
        help="the paper's generated answers, or lm-eval's own tasks of the ten benchmarks (default: generate)",
    )
    evaluate.add_argument("--limit", type=int, metavar="N", help="items a benchmark at most (harness)")
    status = commands.add_parser("status", help="list the runs of a folder")
    status.add_argument("--runs-dir", default="runs", metavar="DIR")
    report = commands.add_parser(
        "report", allow_abbrev=False, help="one HTML page of the notebooks' tables and figures"
    )
    place = report.add_mutually_exclusive_group()
    place.add_argument(
        "--profile", default="tiny", choices=("smoke", "tiny", "paper"), help="whose outputs (default: tiny)"
    )
    place.add_argument("--out", metavar="DIR", help="the folder that the notebooks wrote to, in place of the profile's")
    report.add_argument("--to", metavar="FILE", help="the page (default: report.html in that folder)")
    return parser


def _settings(options: argparse.Namespace) -> RunConfig:
    values = read_yaml(options.config) if options.config else {}
    for field in dataclasses.fields(RunConfig):
        given = getattr(options, field.name)
        if given is None:
            continue
        if field.name == "params":
            pairs = [text.partition("=") for text in given]
            wrong = [name + sign + value for name, sign, value in pairs if not sign]
            if wrong:
                raise ConfigError(f"--params takes NAME=VALUE; found {', '.join(wrong)}")
            own = values.get("params") or {}
            if not isinstance(own, dict):
                raise ConfigError(f"{options.config}: params = {own!r}: give a mapping of names to values")
            given = {**own, **{name: value for name, _, value in pairs}}
        values[field.name] = given
    return RunConfig.from_mapping(values)


def _run(options: argparse.Namespace) -> int:
    from msft.runs import run

    done = run(_settings(options), options.runs_dir, progress=not options.quiet, wait=not options.no_wait)
    best = done.best
    print(f"{done.directory}: accuracy {best.accuracy:.4f} at epoch {best.path_epoch:.2f}; checkpoint in {best.path}")
    return 0


def _eval(options: argparse.Namespace) -> int:
    import pandas as pd

    from msft import runs

    settings = {"method": "sft", "model": options.model, "data_dir": options.data_dir}
    harness = options.protocol == "harness"
    prepared = runs.prepare(RunConfig(**settings, mixture="tiny" if harness else options.mixture))
    model, config = prepared.load_model(), prepared.config
    if harness:
        from msft.harness import evaluate

        table = evaluate(model, prepared.tokenizer, limit=options.limit, batch_size=config.eval_batch_size)
    else:
        from msft.evaluation import Evaluator

        _, mixture = prepared.tokens()
        sizes = (config.max_new_tokens, config.eval_batch_size)
        scores = Evaluator(model, prepared.tokenizer, mixture, "test", *sizes).evaluate()
        table = pd.DataFrame([{"task": task, "accuracy": s.accuracy, "n": s.n} for task, s in scores.items()])
    print(table.to_string(index=False))
    print(f"mean accuracy {table.accuracy.mean():.4f}")
    return 0


def _methods(options: argparse.Namespace) -> int:
    for name in methods.available(options.methods_dir):
        module = methods.load(name, options.methods_dir)
        print(f"{name}: {(module.__doc__ or '').strip().splitlines()[0]}")
        for line in describe(module.Params):
            print(f"    {line}")
    return 0


def _status(options: argparse.Namespace) -> int:
    from pathlib import Path

    from msft.runs import Run

    if not Path(options.runs_dir).is_dir():
        raise ConfigError(f"runs_dir {options.runs_dir!r} is no folder; give a folder of runs")
    damaged = 0
    for path in sorted(Path(options.runs_dir).glob("*/run.json")):
        run = Run(path.parent)
        try:
            best = run.best if run.status == "finished" else None
        except RunError as error:  # one damaged run hides no other
            damaged = 1
            print(f"{path.parent.name}: damaged")
            print(error, file=sys.stderr)
            continue
        found = f", accuracy {best.accuracy:.4f} at epoch {best.path_epoch:.2f}" if best else ""
        print(f"{path.parent.name}: {run.status}{found}")
    return damaged


def _report(options: argparse.Namespace) -> int:
    from paper_figures import report

    print(report.write(options.out or report.OUT / options.profile, options.to))
    return 0


_COMMANDS = {"run": _run, "eval": _eval, "methods": _methods, "status": _status, "report": _report}


def main(argv: list[str] | None = None) -> int:
    """Runs a command; returns its exit code: 0, 2 for settings or data that cannot be used, 1 for a run that stopped."""
    argv = sys.argv[1:] if argv is None else argv
    if argv and not argv[0].startswith("-") and argv[0] not in _COMMANDS:
        print(unknown("command", argv[0], list(_COMMANDS)), file=sys.stderr)
        return 2
    options, left = _parser().parse_known_args(argv)
    if left:
        flags = ["--" + name.replace("_", "-") for name in vars(options)]
        print("\n".join(f"unknown argument {word!r}.{nearest(word, flags)}" for word in left), file=sys.stderr)
        return 2
    try:
        return _COMMANDS[options.command](options)
    except MsftError as error:
        print(error, file=sys.stderr)
        return 2 if isinstance(error, ValueError) else 1
    except BrokenPipeError:  # the reader of a pipe has seen enough
        sys.stdout = None
        return 0


if __name__ == "__main__":
    sys.exit(main())
