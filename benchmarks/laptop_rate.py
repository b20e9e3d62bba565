"""The learning rate of the profile `laptop`, chosen for plain SFT by held-out loss; beside its accuracy what guessing gives.

    python benchmarks/laptop_rate.py --model folder/of/SmolLM2-135M --data folder/of/records    # half an hour on two cores

One epoch at each rate, the ten benchmarks, sizes below the profile's. Finished runs are read. Writes laptop_rate.{json,md}.
"""

import argparse
from pathlib import Path

import pandas as pd
from recording import RESULTS, command, heading, measured_with, write

from msft.launch import local
from paper_figures import findings, profiles
from paper_figures.figures.real_model import most_frequent

RATES = (2e-5, 5e-5, 1e-4, 2e-4)


def curve(run) -> dict[str, dict[str, float]]:
    """{epoch: mean held-out loss (nats a token) and accuracy (%) over the sub-datasets}."""
    means = run.history.groupby("path_epoch")[["loss", "accuracy"]].mean()
    return {f"{epoch:g}": {"loss": row.loss, "accuracy": 100 * row.accuracy} for epoch, row in means.iterrows()}


def lowest(run) -> pd.Series:
    """Held-out loss by sub-dataset at the evaluation where its mean is lowest."""
    losses = run.history.pivot(index="path_epoch", columns="task", values="loss")
    return losses.loc[losses.mean(axis=1).idxmin()]


def main(argv=None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default=profiles.profile("laptop")["focus"], help="a hub id or a folder")
    parser.add_argument("--data", default="", help="a folder of records in hub format in place of the hub")
    parser.add_argument("--mixture", default="paper-10")
    parser.add_argument("--rates", nargs="+", type=float, default=list(RATES))
    parser.add_argument("--epochs", type=float, default=1.0)
    parser.add_argument("--train", type=int, default=100, help="train examples a sub-dataset")
    parser.add_argument("--test", type=int, default=25, help="test examples a sub-dataset")
    parser.add_argument(
        "--tokens", type=int, default=16, help="tokens of an answer at most; the loss is of whole gold answers"
    )
    parser.add_argument("--runs", default="runs", help="folder of the runs")
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args(argv)
    sizes = {"train_size": options.train, "test_size": options.test, "validation_size": 0, "confirmation_size": 0}
    settings = {
        "model": options.model,
        "mixture": options.mixture,
        "select_metric": "loss",
        "evaluations_per_epoch": 2,
        "max_new_tokens": options.tokens,
        "eval_precision": "fp32",  # losses that are told apart by hundredths
        "threads": 1,
    }
    settings |= {"data_dir": options.data} if options.data else {}
    configs = [
        profiles.config("laptop", "sft", learning_rate=rate, params={"epochs": options.epochs}, **sizes, **settings)
        for rate in options.rates
    ]
    runs = local.run_all(configs, options.runs)
    defaults = {name: parser.get_default(name) for name in ("mixture", "rates", "epochs", "train", "test", "tokens")}
    found = {f"{rate:g}": curve(run) for rate, run in zip(options.rates, runs, strict=True)}
    best = [lowest(run) for run in runs]
    first = min(range(len(runs)), key=lambda i: best[i].mean())
    behind = {f"{rate:g}": best[i] - best[first] for i, rate in enumerate(options.rates) if i != first}
    result = {
        "command": command("laptop_rate.py", options, **defaults),
        **measured_with("msft", "torch", "transformers"),
        "model": Path(options.model).name,
        "examples a sub-dataset": {"train": options.train, "test": options.test},
        "by rate and epoch": found,
        "lowest": f"{options.rates[first]:g}",
        "above it, half of the interval": {r: [d.mean(), findings.half_width(d)] for r, d in behind.items()},
        "most frequent answer (%)": float(most_frequent(runs[first]).mean()),
    }
    epochs = list(next(iter(found.values())))
    lines = [
        f"# The learning rate of the laptop profile: SFT of {result['model']}",
        heading(result),
        f"{options.train} train and {options.test} test records of each benchmark, one seed. Mean held-out loss over the "
        "sub-datasets in nats a token, and in brackets the mean accuracy in %; always giving a sub-dataset's most frequent "
        f"right answer has {result['most frequent answer (%)']:.1f} %.",
        "\n".join(
            [
                "| rate | " + " | ".join(f"epoch {epoch}" for epoch in epochs) + " |",
                "|---" * (1 + len(epochs)) + "|",
                *(
                    f"| {rate} | " + " | ".join(f"{at['loss']:.3f} ({at['accuracy']:.1f})" for at in by.values()) + " |"
                    for rate, by in found.items()
                ),
            ]
        ),
        f"At its lowest {result['lowest']} is best; above it (nats, 95 % interval over the sub-datasets) "
        + ", ".join(
            f"{rate} {mean:+.3f} ({mean - half:+.3f} to {mean + half:+.3f})"
            for rate, (mean, half) in result["above it, half of the interval"].items()
        )
        + ".",
    ]
    write(options.results, "laptop_rate", result, "\n\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
