"""Training and evaluation compute in FLOPs (paper, appendix F): 6 N D for training, 2 N D for a forward pass.

N is the number of parameters, D the number of tokens. Tokens are those really trained and evaluated; as in Table 7
the five-shot prefix that all items share is not counted, and sub-datasets that a stage does not train are counted
in its evaluation once, at the point the run goes on from (but see EVALUATES_ALL).
"""

from collections.abc import Iterable, Mapping, Sequence

from msft.results.history import roll_outs

TRAIN, FORWARD = 6, 2
# Table 7's totals of Continual SFT are those of all sub-datasets at every evaluation, of mSFT's only the trained ones
EVALUATES_ALL = ("continual_sft",)
LOOK_AHEAD = 8  # 2 before, 4 backward, 2 after
GRADIENT = 2  # of TRAIN and of LOOK_AHEAD: the gradients of the weights, which those that are frozen do not have


def run_flops(entries: Iterable[Mapping], parameters: int, method: str = "", frozen: int = 0) -> dict[str, float]:
    """FLOPs of a run by its journal's verbs: keys train, evaluate, look_ahead, total. frozen: those not trained."""
    entries, evaluated = list(entries), 0
    went_back = {e["arguments"]["stage"]: e["arguments"]["epoch"] for e in entries if e["kind"] == "roll_back"}
    for entry in roll_outs(entries):
        points = entry["result"]["points"]
        active = set(points[0]["tokens"] if method in EVALUATES_ALL else entry["arguments"]["active"])
        evaluated += evaluated_tokens(points, active, went_back.get(entry["result"]["stage"]))
    train, look_ahead = training_flops([entry["result"] for entry in roll_outs(entries)], parameters, frozen)
    flops = {"train": train, "evaluate": float(FORWARD * parameters * evaluated), "look_ahead": look_ahead}
    return {**flops, "total": sum(flops.values())}


def training_flops(results: Sequence[Mapping], parameters: int, frozen: int = 0) -> tuple[float, float]:
    """FLOPs of (training, looking ahead) in roll-outs, by their results; parameters, frozen: as in `run_flops`."""
    kinds = ("trained_tokens", "forward_tokens", "look_ahead_tokens")
    trained, forward, look_ahead = (sum(result[kind] for result in results) for kind in kinds)
    train = (TRAIN * parameters - GRADIENT * frozen) * trained + FORWARD * parameters * forward
    return float(train), float((LOOK_AHEAD * parameters - GRADIENT * frozen) * look_ahead)


def evaluated_tokens(points: Iterable[Mapping], active: set[str], back: float | None = None) -> int:
    """Tokens of one roll-out's evaluations as the paper counts them.

    Every trained sub-dataset at every evaluation but the start point, which the roll-out before has counted (the
    first roll-out counts its own); the others once, at the epoch `back` that the run goes on from (None: the last).
    """
    points = list(points)
    goes_on = points[-1]["epoch"] if back is None and points else back
    return sum(
        tokens
        for point in points
        for task, tokens in point["tokens"].items()
        if (not point["reused"] if task in active else point["epoch"] == goes_on)
    )
