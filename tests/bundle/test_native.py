import numpy as np

from hyperofa.bundle.bundle import Bundle
from hyperofa.bundle.native import token_mass, with_native
from hyperofa.tokens.canonical import OVERLAP_KINDS, Overlap
from hyperofa.tokens.matching import Matches

EXACT, CASE, NATIVE = (OVERLAP_KINDS.index(kind) for kind in ("exact", "case", "native"))


class Words:
    """`the` is English; `die` frequent in German, rare in English; `gift` in both, as often; `Haus` German."""

    words = ("the", "die", "gift", "die", "gift", "Haus")
    languages = ("deu", "eng")
    language_ids = np.array([1, 1, 1, 0, 0, 0])
    ranks = np.array([0, 99, 49, 1, 49, 9])


TOKENS = Matches(
    indptr=np.array([0, 1, 3, 5, 6, 6]),
    words=np.array([0, 1, 3, 2, 4, 5], np.int32),
    share=np.array([1, 1, 1, 0.5, 0.5, 1], np.float32),
    position=np.zeros(6, np.float32),
    variants=np.ones(6, np.uint8),
)


def test_mass_is_how_often_a_token_occurs():
    english, german = [1, 1 / 100, 1 / 100, 0, 0], [0, 1 / 2, 1 / 100, 1 / 10, 0]
    np.testing.assert_allclose(token_mass(TOKENS, Words), np.stack([german, english], 1))


def test_a_token_is_native_whose_words_are():
    overlap = Overlap(
        np.array([0, 1, 2, 2, 3, 4]), np.array([7, 8, 9, 5, 6, 4]), np.array([2, 2, 2, 3, 3, 2], np.uint8)
    )
    found = with_native(overlap, TOKENS, Words, ["eng"], uncased=False)
    native = found.choose(["native"])
    assert native.target_ids.tolist() == [0, 2]  # `Haus` is no exact overlap, and of token 4 no word is known
    assert native.source_ids.tolist() == [7, 9]
    assert found.choose(OVERLAP_KINDS[:4]).source_ids.tolist() == overlap.choose().source_ids.tolist()
    assert found.choose().source_ids.tolist() == overlap.choose().source_ids.tolist()
    assert (np.diff(found.target_ids) >= 0).all()


def test_a_model_that_ignores_case_has_capital_letters_too():
    """`The` is spelled like `the` alone, `gift` both like `gift` and like `Gift`."""
    overlap = Overlap(np.array([0, 2, 2]), np.array([7, 9, 5]), np.array([CASE, EXACT, CASE], np.uint8))
    found = {uncased: with_native(overlap, TOKENS, Words, ["eng"], uncased).choose(["native"]) for uncased in (0, 1)}
    assert (found[0].target_ids.tolist(), found[0].source_ids.tolist()) == ([2], [9])
    assert (found[1].target_ids.tolist(), found[1].source_ids.tolist()) == ([0, 2], [7, 9])


def test_bundles_tell_native_tokens(bundles):
    for family in ("bert", "roberta"):
        bundle = Bundle.load(bundles[family])
        native = bundle.overlap.choose(["native"])
        spelled = bundle.overlap.choose(["exact", "case"] if family == "bert" else ["exact"])
        assert 0 < len(native) < len(spelled)
        assert set(zip(native.target_ids, native.source_ids, strict=True)) < set(
            zip(spelled.target_ids, spelled.source_ids, strict=True)
        )


def test_not_in_reference_mode(bundles):
    bundle = Bundle.load(bundles["bert"])
    bundle.meta.__dict__["reference"] = True
    assert not len(bundle.overlap.choose(["native"]))
