"""Training and evaluation compute in FLOPs (paper, appendix F): 6 N D for training, 2 N D for a forward pass.

N is the number of parameters, D the number of tokens. Tokens are those really trained and evaluated; as in Table 7
the five-shot prefix that all items share is not counted, and sub-datasets that a stage does not train are counted
in its evaluation once, at the point the run goes on from (but see EVALUATES_ALL).
"""

from collections.abc import Iterable, Mapping

TRAIN, FORWARD = 6, 2
# Table 7's totals of Continual SFT are those of all sub-datasets at every evaluation, of mSFT's only the trained ones
EVALUATES_ALL = ("continual_sft",)
LOOK_AHEAD = 8  # 2 before, 4 backward, 2 after
GRADIENT = 2  # of TRAIN and of LOOK_AHEAD: the gradients of the weights, which those that are frozen do not have


def run_flops(entries: Iterable[Mapping], parameters: int, method: str = "", frozen: int = 0) -> dict[str, float]:
    """FLOPs of a run from the verbs of its journal: keys train, evaluate, look_ahead, total.

    frozen: how many of the parameters an adapter's training leaves as they are.
    """
    entries = list(entries)
    went_back = {e["arguments"]["stage"]: e["arguments"]["epoch"] for e in entries if e["kind"] == "roll_back"}
    tokens = {"train": 0, "evaluate": 0, "look_ahead": 0, "forward": 0}
    for entry in entries:
        if entry["kind"] not in ("roll_out", "search"):
            continue
        result = entry["result"]
        tokens["train"] += result["trained_tokens"]
        tokens["forward"] += result["forward_tokens"]
        tokens["look_ahead"] += result["look_ahead_tokens"]
        active = set(entry["arguments"]["active"])
        if method in EVALUATES_ALL:
            active = set(result["points"][0]["tokens"])
        tokens["evaluate"] += evaluated_tokens(result["points"], active, went_back.get(result["stage"]))
    flops = {
        "train": float(
            (TRAIN * parameters - GRADIENT * frozen) * tokens["train"] + FORWARD * parameters * tokens["forward"]
        ),
        "evaluate": float(FORWARD * parameters * tokens["evaluate"]),
        "look_ahead": float((LOOK_AHEAD * parameters - GRADIENT * frozen) * tokens["look_ahead"]),
    }
    return {**flops, "total": sum(flops.values())}


def evaluated_tokens(points: Iterable[Mapping], active: set[str], back: float | None = None) -> int:
    """Tokens of one roll-out's evaluations as the paper counts them.

    Every trained sub-dataset at every evaluation but the start point, which the roll-out before has counted (the
    first roll-out counts its own); the others once, at the epoch `back` that the run goes on from (None: the last).
    """
    points = list(points)
    goes_on = points[-1]["epoch"] if back is None and points else back
    total = 0
    for point in points:
        for task, tokens in point["tokens"].items():
            if (task in active and not point["reused"]) or (task not in active and point["epoch"] == goes_on):
                total += tokens
    return total
