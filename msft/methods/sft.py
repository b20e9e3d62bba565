"""SFT: all sub-datasets together for a fixed number of epochs; the best quarter epoch is reported (paper, section 4.1)."""

from dataclasses import dataclass

from msft.settings import setting


@dataclass(frozen=True)
class Params:
    """Settings of SFT."""

    epochs: float = setting(10.0, "epochs over the whole mixture", low=0.25, high=1000, epochs=True)


def run(trainer, params: Params) -> None:
    """One roll-out over everything."""
    trainer.roll_out(trainer.tasks, epochs=params.epochs)
