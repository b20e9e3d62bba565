"""Which directions may be told, on differences made by hand."""

import numpy as np
import pytest

from paper_figures import reported_numbers


@pytest.mark.parametrize(
    ("theirs", "ours", "interval", "told"),
    [
        (1.0, (2.0, 0.5, 3.5), "0.50 to 3.50", "yes"),
        (-1.0, (-2.0, -3.5, -0.5), "-3.50 to -0.50", "yes"),
        (1.0, (-2.0, -3.5, -0.5), "-3.50 to -0.50", "no"),
        (1.0, (2.0, -0.5, 4.5), "-0.50 to 4.50", "cannot tell"),
        # an end at 0 does not leave it out, and neither does one that is not known
        (1.0, (2.0, 0.0, 4.0), "0.00 to 4.00", "cannot tell"),
        (1.0, (0.0, 0.0, 0.0), "0.00 to 0.00", "cannot tell"),
        (1.0, (2.0, np.nan, np.nan), "nan to nan", "cannot tell"),
        # a word where the paper gives no number
        ("lower", (-2.0, -3.0, -1.0), "-3.00 to -1.00", "yes"),
        ("lower", (2.0, 1.0, 3.0), "1.00 to 3.00", "no"),
        ("higher", (2.0, 1.0, 3.0), "1.00 to 3.00", "yes"),
        # counted, not sampled
        (1.0, (2.0,), "–", "yes"),
        (1.0, (-2.0,), "–", "no"),
        (1.0, (0.0,), "–", "no"),
    ],
)
def test_a_direction_is_told_where_the_interval_leaves_out_0(theirs, ours, interval, told):
    table = reported_numbers.directions({"what": (theirs, *ours)}, unit="% of FLOPs")
    assert list(table.columns) == ["paper (% of FLOPs)", "here (% of FLOPs)", "95 % interval", "same direction"]
    assert table.loc["what"].tolist() == [theirs, ours[0], interval, told]
