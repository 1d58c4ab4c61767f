from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse as sp

from hyperofa.bundle.bundle import Bundle
from hyperofa.methods import baselines
from hyperofa.methods.baselines import Predictions
from hyperofa.methods.fallbacks import (
    ORIGINS,
    Plan,
    fill,
    fill_for_training,
    plan_and_fill,
    plan_rows,
    script,
    target_inputs,
)
from hyperofa.methods.relatives import pieces_of_tokens, tokens_with
from hyperofa.tokens.canonical import OVERLAP_KINDS, Token, canonical_tokens


def rows_for(bundle: Bundle, known: np.ndarray) -> Predictions:
    """Rows that can be told from all others."""
    width = bundle.meta.coordinate_dim
    return Predictions(np.full((len(known), width), 7, np.float32) + np.arange(len(known))[:, None], known)


@pytest.mark.parametrize("name", ["bert", "roberta", "xlmr"])
@pytest.mark.parametrize("kinds", [OVERLAP_KINDS, ("role", "exact"), ()])
@pytest.mark.parametrize("knowing", ["covered", "some", "none"])
def test_the_ladder_is_climbed_in_order(bundles, name, kinds, knowing):
    bundle = Bundle.load(bundles[name])
    known = bundle.target.covered.copy()
    known[::2] &= knowing == "covered"
    known[1::2] &= knowing != "none"
    inputs, rows = target_inputs(bundle), rows_for(bundle, known)
    filled = plan_and_fill(inputs, rows, kinds)
    spelled = baselines.subtokens(inputs)
    tokens = canonical_tokens(bundle.tokenizer("target"))
    chosen, rest = bundle.overlap.choose(kinds), bundle.overlap.choose()
    copies = [dict(zip(pairs.target_ids.tolist(), pairs.source_ids.tolist(), strict=True)) for pairs in (chosen, rest)]
    expected: dict[int, tuple[str, np.ndarray]] = {}
    for token in range(len(tokens)):
        if token in copies[0]:
            expected[token] = "copied", bundle.coordinates[copies[0][token]]
        elif known[token]:
            expected[token] = "predicted", rows.coordinates[token]
        elif token in copies[1]:
            expected[token] = "copied", bundle.coordinates[copies[1][token]]
        elif spelled.known[token]:
            expected[token] = "subtokens", spelled.coordinates[token]
    usable = np.isin(
        np.arange(len(tokens)), [token for token, (origin, _) in expected.items() if origin != "subtokens"]
    )
    others = np.stack(
        [expected[token][1] if usable[token] else np.zeros_like(rows.coordinates[0]) for token in range(len(tokens))]
    )
    for origin, find in (("pieces", pieces_of_tokens), ("containing", tokens_with)):  # the better one last
        matrix = find(tokens, np.flatnonzero(~usable), usable)
        expected |= {
            token: (origin, (matrix @ others)[token]) for token in np.flatnonzero(np.diff(matrix.indptr)).tolist()
        }
    by_script: dict[str, list[np.ndarray]] = {}
    for token, (origin, row) in expected.items():
        if origin in ("containing", "pieces"):
            continue
        by_script.setdefault(script(tokens[token]), []).append(row)
    by_script.pop("", None)
    for token in set(range(len(tokens))) - set(expected):
        like = by_script.get(script(tokens[token]))
        origin = "mean" if like is None else "script"
        expected[token] = origin, np.mean(bundle.coordinates if like is None else like, 0)
    assert [ORIGINS[number] for number in filled.origins] == [expected[token][0] for token in range(len(tokens))]
    for token, (_, row) in expected.items():
        np.testing.assert_allclose(filled.coordinates[token], row, rtol=1e-3, atol=1e-4)
    assert sum(filled.counts().values()) == len(tokens) == bundle.meta.target_tokens
    mixed = np.isin(filled.origins, [ORIGINS.index("copied"), ORIGINS.index("subtokens")])
    np.testing.assert_array_equal(np.diff(filled.mixture.indptr) > 0, mixed)
    np.testing.assert_allclose((filled.mixture @ bundle.coordinates)[mixed], filled.coordinates[mixed], atol=1e-4)


def test_letters_that_the_source_cannot_spell_take_the_mean_of_their_script(bundles):
    bundle = Bundle.load(bundles["bert"])
    nothing = rows_for(bundle, np.zeros(bundle.meta.target_tokens, bool))
    filled = plan_and_fill(target_inputs(bundle), nothing, OVERLAP_KINDS)
    tokens = canonical_tokens(bundle.tokenizer("target"))
    alone = [i for i, token in enumerate(tokens) if "ß" in token.text.decode(errors="ignore")]
    assert {ORIGINS[number] for number in filled.origins[alone]} == {"script"}
    assert (filled.coordinates[alone] == filled.coordinates[alone[0]]).all()


def test_a_script_of_which_only_digits_are_known_has_no_mean(bundles):
    """`3ዲ` takes its row from its `3`, which says nothing of the letter beside it."""
    bundle = Bundle.load(bundles["bert"])
    inputs = target_inputs(bundle)
    tokens = list(inputs.tokens)
    known_of = [token for token, _ in enumerate(tokens) if inputs.covered[token] and tokens[token].text.isalpha()]
    digit, mixed, letter = known_of[:3]
    for token, text in ((digit, "3"), (mixed, "3ዲ"), (letter, "ዲ")):
        tokens[token] = Token(text.encode(), starts_word=False)
    known, spelled = inputs.covered.copy(), inputs.spelled.tolil()
    for token in (mixed, letter):
        known[token], spelled[token] = False, 0
    bare = replace(inputs, tokens=tokens, overlap=inputs.overlap.choose([]), spelled=spelled.tocsr())
    filled = plan_and_fill(bare, rows_for(bundle, known), ())
    assert [ORIGINS[filled.origins[token]] for token in (digit, mixed, letter)] == ["predicted", "pieces", "mean"]
    assert np.isfinite(filled.coordinates).all()


def test_a_methods_mixtures_are_kept(bundles):
    bundle = Bundle.load(bundles["roberta8"])
    inputs = target_inputs(bundle)
    filled = plan_and_fill(inputs, baselines.ofa(inputs), ("role",))
    predicted = filled.origins == ORIGINS.index("predicted")
    assert predicted.sum() > 50
    np.testing.assert_allclose(
        (filled.mixture @ bundle.coordinates)[predicted], filled.coordinates[predicted], atol=1e-4
    )


def test_a_plan_is_made_without_rows_and_filled_with_any(bundles):
    """Training fills it before a net has predicted anything, an export afterwards: the same rows are left to it."""
    bundle = Bundle.load(bundles["bert"])
    inputs, known = target_inputs(bundle), bundle.target.covered
    plan = plan_rows(inputs, known, ("role",))
    one, other = fill(plan, bundle.coordinates, rows_for(bundle, known)), baselines.ofa(inputs)
    other = fill(plan, bundle.coordinates, other)
    for filled in (one, other, plan_and_fill(inputs, rows_for(bundle, known), ("role",))):
        np.testing.assert_array_equal(filled.origins, plan.origins)
        rest = plan.ids("copied", "subtokens", "mean")
        np.testing.assert_array_equal(filled.coordinates[rest], one.coordinates[rest])
    assert sorted(np.concatenate([plan.ids(origin) for origin in ORIGINS]).tolist()) == list(range(len(known)))
    predicted = plan.ids("predicted")
    assert len(predicted) > 50
    assert (one.coordinates[predicted] != other.coordinates[predicted]).any(1).all()


def test_a_plan_is_not_filled_with_too_few_rows(bundles):
    bundle = Bundle.load(bundles["bert"])
    known = bundle.target.covered.copy()
    plan = plan_rows(target_inputs(bundle), known, ("role",))
    known[plan.ids("predicted")[0]] = False
    with pytest.raises(ValueError, match=r"expected rows for (\d+) tokens, found \d+"):
        fill(plan, bundle.coordinates, rows_for(bundle, known))


def test_what_training_need_not_predict(bundles):
    bundle = Bundle.load(bundles["bert"])
    filled = fill_for_training(target_inputs(bundle), ("role",))
    predictable = filled.plan.of("predicted")
    assert not predictable[bundle.overlap.choose(["role"]).target_ids].any()
    assert not (predictable & ~bundle.target.covered).any()
    assert filled.coordinates[~predictable].any(1).all()


@pytest.mark.parametrize("fallback", ["ladder", "noise"])
def test_training_and_exports_follow_one_plan(fallback, bundles):
    """What a net is not asked to predict in training it is not asked in an export, and the rest has the same rows."""
    bundle = Bundle.load(bundles["roberta"])
    trained = fill_for_training(target_inputs(bundle), ("role", "symbol"), fallback)
    inputs = target_inputs(Bundle.load(bundles["roberta"]))
    predicted = Predictions(np.ones_like(trained.coordinates), bundle.target.covered)
    exported = plan_and_fill(inputs, predicted, ("role", "symbol"), fallback)
    for name in Plan.__dataclass_fields__:
        ours, theirs = (getattr(filled.plan, name) for filled in (trained, exported))
        if sp.issparse(ours):
            assert (ours != theirs).nnz == 0, name
        else:
            np.testing.assert_array_equal(ours, theirs, name)
    rest = ~trained.plan.of("predicted", "containing", "pieces", "script")
    assert rest.sum() > 10
    np.testing.assert_array_equal(trained.coordinates[rest], exported.coordinates[rest])


def test_held_out_tokens_are_no_vocabulary(bundles):
    inputs = replace(target_inputs(Bundle.load(bundles["bert"])), overlap=None)
    with pytest.raises(ValueError, match="expected the inputs of a target vocabulary"):
        plan_rows(inputs, inputs.covered, ("role",))


def test_script_is_that_of_the_first_letter():
    assert [script(Token(text.encode(), True)) for text in ("a", "1я", "ß", "漢", "!", "")] == [
        "LATIN", "CYRILLIC", "LATIN", "CJK", "", "",
    ]  # fmt: skip
    assert script(None) == script(Token(b"<s>", False, ("bos",), special=True)) == ""
    assert script(Token("я".encode()[:1], False)) == ""
