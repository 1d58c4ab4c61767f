import numpy as np
import pytest

from hyperofa.tokens.canonical import bare_backend, load_tokenizer
from hyperofa.training.language_views import IGNORED, LanguageTask, Line
from tests.conftest import ENGLISH, GERMAN


def task(objective, folder, negatives=8, **changes):
    tokenizer = load_tokenizer(folder)
    settings = {"size": len(tokenizer), "hiding": [tokenizer.mask_token_id], "start": None, "bias": None}
    settings["surveyed"] = ENGLISH + GERMAN
    return tokenizer, LanguageTask(objective, bare_backend(tokenizer), negatives=negatives, **{**settings, **changes})


@pytest.mark.parametrize(("starts", "ends"), [(True, True), (True, False), (False, True), (False, False)])
def test_a_causal_model_says_the_next_token(starts, ends, tokenizer_folders):
    """A sentence has a beginning and an end only where its line has."""
    tokenizer, causal = task("causal", tokenizer_folders["unigram"])
    asked = causal.ask([Line(GERMAN[0], 0, starts, ends)], np.random.default_rng(0))
    ids = tokenizer(GERMAN[0]).input_ids
    assert (ids[0], ids[-1]) == (tokenizer.bos_token_id, tokenizer.eos_token_id)
    expected = [*ids[1:], IGNORED]
    if not starts:
        expected[0] = IGNORED
    if not ends:
        expected[-2] = IGNORED
    assert asked.shown[0].tolist() == ids
    assert asked.said[0].tolist() == expected


def test_a_text_that_is_cut_does_not_end(tokenizer_folders):
    tokenizer = load_tokenizer(tokenizer_folders["unigram"])
    backend = bare_backend(tokenizer)
    backend.enable_truncation(8)
    causal = LanguageTask("causal", backend, len(tokenizer), [], None, None, 0, ENGLISH)
    asked = causal.ask([Line(GERMAN[0], 0, True, True), Line("der", 0, True, True)], np.random.default_rng(0))
    assert asked.shown[0][-1] == tokenizer.eos_token_id
    assert tokenizer.eos_token_id not in asked.said[0]
    assert tokenizer.eos_token_id in asked.said[1]


def test_a_masked_model_says_what_is_hidden(tokenizer_folders):
    tokenizer, masked = task("masked", tokenizer_folders["unigram"])
    lines = [Line(text, 0, True, True) for text in [*ENGLISH, *GERMAN, "der"] * 20]
    asked = masked.ask(lines, np.random.default_rng(0))
    share = []
    for line, shown, said in zip(lines, asked.shown, asked.said, strict=True):
        ids, hidden = np.array(tokenizer(line.text).input_ids), said != IGNORED
        assert hidden.any()
        assert not hidden[[0, -1]].any()
        np.testing.assert_array_equal(said[hidden], ids[hidden])
        np.testing.assert_array_equal(shown, np.where(hidden, tokenizer.mask_token_id, ids))
        share.append(hidden[1:-1].mean())
    assert 0.13 < np.mean(share[:-20]) < 0.2


def test_an_encoder_decoder_says_the_spans_that_are_hidden(tokenizer_folders):
    """What is shown and what is said make the text; the decoder hears what it has said, sentinels are not asked for."""
    sentinels = [900, 901, 902, 903]
    tokenizer, hiding = task("spans", tokenizer_folders["unigram"], hiding=sentinels, start=7, size=1000)
    lines = [Line(text, 0, True, True) for text in [*ENGLISH, *GERMAN, "der", " ".join(GERMAN)] * 20]
    asked = hiding.ask(lines, np.random.default_rng(0))
    share, spans = [], []
    for line, shown, said, heard in zip(lines, asked.shown, asked.said, asked.heard, strict=True):
        ids, found = tokenizer(line.text).input_ids, shown.tolist()
        assert heard[0] == 7
        places = np.flatnonzero(np.isin(heard, sentinels))
        assert heard[places].tolist() == sentinels[: len(places)]
        answers = np.append(heard[1:], sentinels[len(places)])
        np.testing.assert_array_equal(said, np.where(np.isin(answers, sentinels), IGNORED, answers))
        for place, end in zip(places, [*places[1:], len(heard)], strict=True):
            where = found.index(heard[place])
            found[where : where + 1] = heard[place + 1 : end].tolist()
        assert found == ids
        share.append((said != IGNORED).sum() / (len(ids) - 2))
        spans.append(len(places))
    assert 0.12 < np.mean(share) < 0.2
    assert max(spans) == 3  # the fourth sentinel ends the third span
    assert (hiding.chances(np.array([*sentinels, 7]), 10) == 1).all()


def test_text_of_special_tokens_alone_asks_for_nothing(tokenizer_folders):
    for objective in ("causal", "masked", "spans"):
        _, empty = task(objective, tokenizer_folders["unigram"])
        asked = empty.ask([Line("", 0, True, True)], np.random.default_rng(0))
        assert (asked.said[0] == IGNORED).all()


def test_chances_are_those_of_batches(tokenizer_folders):
    """Batches of tokens drawn by their frequency, and rivals drawn evenly, hold each token as often as foreseen."""
    texts = (ENGLISH + GERMAN) * 40
    tokenizer, causal = task("causal", tokenizer_folders["unigram"], negatives=30, surveyed=texts, hiding=[])
    pool = np.concatenate(tokenizer(texts).input_ids)
    rng, drawn, rounds = np.random.default_rng(0), 80, 3000
    size = len(tokenizer)
    seen = np.zeros(size)
    for _ in range(rounds):
        seen[np.union1d(rng.choice(pool, drawn), causal.rivals(rng))] += 1
    chances = causal.chances(np.arange(size), drawn)
    np.testing.assert_allclose(seen / rounds, chances, atol=0.05)
    assert chances.min() >= 30 / size
