"""Numbers out of their bounds are refused wherever they are given."""

import math
from dataclasses import dataclass

import pytest

from hyperofa.errors import InputError
from hyperofa.pretraining.settings import TrainerOptions, Training
from hyperofa.runtime.ranges import Count, Positive, Seed, Share, check_ranges, in_range
from hyperofa.training.text_views import ViewCounts


@in_range("data.")
def function(count: Count | None = None, seed: Seed = 0, *, share: Share = 0.5, width: Positive = 1.0) -> str:
    """Summary."""
    return f"{count} {seed} {share} {width}"


@dataclass(frozen=True)
class Options:
    count: Count = 1

    def __post_init__(self) -> None:
        check_ranges(self, "options.")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"count": 0}, "count: expected at least 1, found 0"),
        ({"count": 10**22}, "count: expected at most 2147483647, found 1000"),
        ({"seed": -1}, "seed: expected a number from 0 to 4294967295, found -1"),
        ({"seed": 2**32}, "found 4294967296"),
        ({"share": 1.5}, "share: expected a number from 0 to 1, found 1.5"),
        ({"share": math.nan}, "found nan"),
        ({"width": math.inf}, "width: expected a number above 0, found inf"),
        ({"width": 0}, "width: expected a number above 0, found 0"),
    ],
)
def test_out_of_bounds(arguments, expected):
    with pytest.raises(InputError, match=expected):
        function(**arguments)


def test_within_bounds():
    assert function() == "None 0 0.5 1.0"
    assert function(3, 2**32 - 1, share=1, width=1e-9) == "3 4294967295 1 1e-09"
    assert function.__doc__ == "Summary."


def test_fields():
    assert Options(2).count == 2
    with pytest.raises(InputError, match=r"options\.count: expected at least 1, found 0"):
        Options(0)
    fields = {Training: "seed", TrainerOptions: "num_nodes", ViewCounts: "source"}
    for options, field in fields.items():
        with pytest.raises(InputError, match=rf"{field}: expected at least|{field}: expected a number from 0"):
            options(**{field: -1})
