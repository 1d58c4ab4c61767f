"""One record a method: what it says of itself is true, and everything that speaks of methods reads it."""

import re
from dataclasses import replace

import numpy as np
import pytest

from hyperofa.bundle.bundle import Bundle
from hyperofa.cli import main
from hyperofa.errors import InputError
from hyperofa.experiments.grid import expand
from hyperofa.methods.baselines import Predictions, nothing
from hyperofa.methods.fallbacks import target_inputs
from hyperofa.methods.registry import METHODS, Context, Method, compared_by, method_named
from tests.methods.readme import README, with_methods

UNTRAINED = [name for name, method in METHODS.items() if not method.trained]


@pytest.fixture(scope="module")
def inputs(bundles):
    return target_inputs(Bundle.load(bundles["bert"]), parallel=[("the woman", "the woman")] * 2)


def test_the_readme_lists_the_methods_that_there_are():
    text = README.read_text(encoding="utf-8")
    assert text == with_methods(text), "expected the README's table to have every method: run `make readme`"


def test_a_record_says_which_commands_compare_it():
    assert compared_by("demo") == ["random", "mean", "subtokens", "ofa", "ofa_tuned", "hyperofa"]
    assert compared_by("hewitt") == ["zeros", "small_noise", "mean_noise", "mean", "subtokens", "ofa", "hyperofa"]


def test_a_row_that_is_missing_is_put_where_it_belongs():
    text = README.read_text(encoding="utf-8")
    without = text.replace(f"| `mean` | {METHODS['mean'].about} |\n", "")
    assert without != text
    assert with_methods(without) == text
    with pytest.raises(ValueError, match="expected one table of methods, found 0"):
        with_methods("# hyperofa\n")


def test_the_help_of_export_lists_them(capsys):
    with pytest.raises(SystemExit):
        main(["export", "--help"])
    said = capsys.readouterr().out.partition("\nmethods:\n")[2]
    assert re.findall(r"^  (\w+) ", said, re.MULTILINE) == list(METHODS)


@pytest.mark.parametrize("name", UNTRAINED)
@pytest.mark.parametrize("reference", [False, True])
def test_seeded_is_what_another_seed_changes(inputs, name, reference):
    method = method_named(name, reference=reference)
    first, same, other = (method.predict(inputs, Context(seed)) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first.coordinates, same.coordinates)
    assert np.array_equal(first.coordinates, other.coordinates) == (
        not method.seeded or method is METHODS["random"].published
    )


def test_noise_of_a_method_without_a_seed_is_refused(inputs):
    method = Method("mine", "noise", lambda inputs, context: Predictions(context.rng.normal(size=(3, 3)), np.ones(3)))
    with pytest.raises(InputError, match=r"expected register_method\(…, seeded=True\)"):
        method.predict(inputs, Context(seed=0))


def test_an_answer_of_the_wrong_shape_is_refused(inputs):
    rows = nothing(inputs)
    method = Method("mine", "short", lambda *_: replace(rows, known=rows.known[1:]))
    count, width = rows.coordinates.shape
    message = (
        rf"method='mine': expected coordinates of shape \({count}, {width}\) and {count} flags .* and \({count - 1},\)"
    )
    with pytest.raises(InputError, match=message):
        method.predict(inputs, Context())


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_a_grid_has_a_cell_a_seed_where_the_method_is_seeded(method):
    settings = {"M": {"export.method": method.name, "fit.config": "fit"}}
    cells = expand(settings, {"prepare.source_model": "m"}, {"seed": [0, 1, 2]}, "code")
    assert [cell.seed for cell in cells] == ([0, 1, 2] if method.seeded else [0])
    assert all(bool(cell.run) == method.trained for cell in cells)


def test_a_grid_refuses_a_method_that_there_is_not():
    with pytest.raises(
        InputError, match=r"methods: M: export\.method: expected one of hyperofa, .*, ofa, .*; found magic"
    ):
        expand({"M": {"export.method": "magic"}}, {}, {}, "code")
