"""SRO SFT: one roll-out finds every peak, a second training from the base drops each sub-dataset at its peak.

Section 3.1, Algorithm 2 and appendix F.1 [5]. The paper is silent on the optimizer at a drop (here: one throughout),
on a peak at the start point (here: never trained) and on the end (here: when all are dropped).
"""

from dataclasses import dataclass

from msft.settings import setting


@dataclass(frozen=True)
class Params:
    """Settings of SRO SFT."""

    epochs: float = setting(10.0, "epochs of the search", low=0.25, high=1000, epochs=True)


def run(trainer, params: Params) -> None:
    """Search, then train with the drop times that the search found."""
    search = trainer.search(params.epochs)
    peaks = {task: search.peak(task) for task in trainer.tasks}
    trainer.note("drop times", peaks=peaks)
    trainer.restart(search)
    now = 0.0
    for time in sorted(set(peaks.values()) - {0.0}):
        active = [task for task in trainer.tasks if peaks[task] >= time]
        trainer.roll_out(active, epochs=time - now, keep_optimizer=now > 0)
        now = time
    if now == 0.0:  # every sub-dataset was best before training
        trainer.report(path_epoch=0.0)
