"""New words are one token each, wherever they stand; everything else is as it was, to the row."""

import re

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from hyperofa.cli import main
from hyperofa.errors import InputError
from hyperofa.models.expand import expand, expand_state
from hyperofa.tokens.canonical import bare_backend, canonical_tokens, load_tokenizer
from hyperofa.tokens.mining import count_tokens, count_words
from tests import zoo
from tests.conftest import ENGLISH, GERMAN

WORDS = ["hydrogel", "hydro", "Größe", "हिन्दी", "riverbed", "COVID-19", "childre", "C++", "łódź"]
LOWER = {"wordpiece", "BertTokenizer"}  # they fold case and accents, and separate marks when decoding
UNIGRAM = {"unigram", "xlmr", "XLMRobertaTokenizer"}
FRAMES = ("{}", "the {}", "the {} in it", "{}, the", "the {}.", "({})", "a\n{}\nb", "„{}“", "the  {}")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return zoo.make_zoo(tmp_path_factory.mktemp("zoo"))


@pytest.fixture(scope="module")
def expanded(folders, tmp_path_factory):
    root = tmp_path_factory.mktemp("expanded")
    (root / "words.txt").write_text("\n".join(WORDS) + "\n", encoding="utf-8")
    results = {}
    for name, folder in folders.items():
        results[name] = expand(str(folder), root / name, words=root / "words.txt")
    return results


@pytest.fixture(scope="module")
def pairs(folders, expanded):
    """Tokenizers before and after, both as AutoTokenizer loads them."""
    return {name: (load_tokenizer(folders[name]), load_tokenizer(expanded[name].path)) for name in folders}


def encode(tokenizer, text):
    return tokenizer(text, add_special_tokens=False)["input_ids"]


@pytest.mark.parametrize("family", zoo.FAMILIES)
class TestEveryFamily:
    def test_old_tokens_keep_their_ids_and_new_ones_follow_without_a_hole(self, pairs, expanded, family):
        old, new = (tokenizer.get_vocab() for tokenizer in pairs[family])
        assert old.items() <= new.items()
        assert sorted(set(new.values()) - set(old.values())) == list(range(max(old.values()) + 1, len(new)))
        assert sorted(expanded[family].words) == sorted(WORDS)
        assert len(expanded[family].tokens) == len(new) - len(old)

    @pytest.mark.parametrize("frame", FRAMES)
    def test_a_word_is_one_token_in_running_text(self, pairs, family, frame):
        old, new = pairs[family]
        if family == "llama3" and frame[0] in "(„":
            pytest.skip("its pattern joins a bracket to the letters after it")
        for word in WORDS:
            ids = encode(new, frame.format(word))
            assert sum(token >= len(old) for token in ids) == 1, (word, new.convert_ids_to_tokens(ids))
            alone = [token for token in ids if token >= len(old)]
            assert new.decode(alone).strip().casefold() in (word.casefold(), *encodable(old, word))

    @pytest.mark.parametrize("frame", FRAMES)
    def test_decoding_gives_the_text_back(self, pairs, family, frame):
        if family in LOWER | UNIGRAM:
            pytest.skip("decodes unknown characters and spaces in another way, also without new words")
        old, new = pairs[family]
        for word in WORDS:
            text = frame.format(word)
            expected = old.decode(encode(old, text))
            assert new.decode(encode(new, text)) == expected == text

    def test_unigram_and_wordpiece_decode_with_the_same_spaces(self, pairs, family):
        new = pairs[family][1]
        assert (
            new.decode(encode(new, "the hydrogel the riverbed hydrogel in")) == "the hydrogel the riverbed hydrogel in"
        )

    def test_special_tokens_and_the_post_processor_stay(self, pairs, family):
        old, new = pairs[family]
        assert new.special_tokens_map == old.special_tokens_map
        assert new("the river")["input_ids"] == old("the river")["input_ids"]
        text = f"the {old.all_special_tokens[-1]} river"
        assert encode(new, text) == encode(old, text)

    @settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(
        text=st.one_of(
            st.text(), st.text("hydrogelszGßरि ,.()\n'ol"), st.lists(st.sampled_from(ENGLISH + GERMAN)).map(" ".join)
        )
    )
    @example("hydrogels xhydrogel hydrogel1 _hydrogel_ childrens")
    def test_texts_without_new_words_are_tokenised_as_before(self, pairs, family, text):
        old, new = pairs[family]
        before, after = encode(old, text), encode(new, text)
        new_tokens = [token for token in after if token >= len(old)]
        if family in UNIGRAM and new_tokens:
            return  # a longer word may be spelled with a new token; the next test has it
        if not new_tokens:
            assert before == after
        else:
            names = "|".join(re.escape(encodable(old, word)[0]) for word in WORDS)
            seen = old.backend_tokenizer.normalizer
            seen = text if seen is None else seen.normalize_str(text)
            assert re.search(rf"(?<!\w)({names})", seen.replace("▁", " "))

    def test_an_expanded_tokenizer_can_be_expanded(self, expanded, tmp_path, family):
        (tmp_path / "more.txt").write_text("zebra\nhydrogel\nhydrogels\n", encoding="utf-8")
        again = expand(str(expanded[family].path), tmp_path / "again", words=tmp_path / "more.txt")
        assert again.words == ["zebra", "hydrogels"]
        assert again.skipped == ["hydrogel"]
        new = load_tokenizer(again.path)
        ids = encode(new, "the zebra hydrogel hydrogels")
        assert len(ids) == len(encode(new, "the")) + 3


def encodable(tokenizer, word):
    """The word as the tokenizer's normaliser leaves it."""
    normalizer = tokenizer.backend_tokenizer.normalizer
    seen = word if normalizer is None else normalizer.normalize_str(word).strip("▁ ")
    return [seen, seen.casefold()]


@pytest.mark.parametrize("family", sorted(UNIGRAM))
def test_unigram_spells_longer_words_with_the_new_token_only_in_place_of_its_very_pieces(pairs, family):
    old, new = pairs[family]
    spelled = {token: encode(old, word) for token, word in new_words(old, new)}
    for text in ("the hydrogels", "childrens", "hydros and riverbeds", "the old and the children"):
        expanded = [piece for token in encode(new, text) for piece in spelled.get(token, [token])]
        assert expanded == encode(old, text)


def new_words(old, new):
    for content, token in new.get_vocab().items():
        if token >= len(old) and content.startswith("▁"):
            yield token, content.removeprefix("▁")


def test_uncased_words_match_in_any_case(pairs):
    new = pairs["wordpiece"][1]
    assert [new.convert_ids_to_tokens(encode(new, text)) for text in ("Hydrogel", "HYDROGEL")] == [["hydrogel"]] * 2


def test_whole_word_tokens_start_words(pairs):
    new = pairs["wordpiece"][1]
    token = canonical_tokens(new)[new.convert_tokens_to_ids("hydrogel")]
    assert token is not None
    assert token.starts_word


def test_mined_words_save_what_the_report_says(folders, tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("\n".join(GERMAN) + "\n", encoding="utf-8")
    result = expand(str(folders["bytelevel"]), tmp_path / "out", text=[text], count=5)
    old, new = load_tokenizer(folders["bytelevel"]), load_tokenizer(result.path)
    assert result.text == (count_tokens(bare_backend(old), GERMAN), count_tokens(bare_backend(new), GERMAN))
    assert len(result.words) == 5
    assert result.text[1] < result.text[0]
    # Brute force: the five words that save most.
    saved = {word: n * (len(encode(old, f" {word}")) - 1) for word, n in count_words(GERMAN).items()}
    assert sum(saved[word] for word in result.words) == sum(sorted(saved.values())[-5:])
    before, after = result.text
    assert f"{before:,} tokens before, {after:,} after" in result.summary()


def test_min_pieces_leaves_out_words_that_are_short_already(folders, tmp_path):
    (tmp_path / "t.txt").write_text("zzzzzz " * 3 + "the of", encoding="utf-8")
    result = expand(str(folders["bytelevel"]), tmp_path / "out", text=[tmp_path / "t.txt"], count=9, min_pieces=5)
    assert result.words == ["zzzzzz"]


def test_unknown_words_count_as_their_characters(folders, tmp_path):
    (tmp_path / "t.txt").write_text("नमस्ते the", encoding="utf-8")
    result = expand(str(folders["wordpiece"]), tmp_path / "out", text=[tmp_path / "t.txt"], count=9)
    assert result.words == ["नमस्ते"]


def test_words_of_another_tokenizer(folders, tokenizer_folders, tmp_path):
    result = expand(str(folders["bytelevel"]), tmp_path / "out", tokenizer=str(tokenizer_folders["unigram"]))
    theirs = [t for t in canonical_tokens(load_tokenizer(tokenizer_folders["unigram"])) if t and t.starts_word]
    assert set(result.words) <= {token.text.decode() for token in theirs}
    old, new = load_tokenizer(folders["bytelevel"]), load_tokenizer(result.path)
    for word in result.words:
        assert len(encode(old, f" {word}")) > 1
        assert len(encode(new, f" {word}")) == 1
    (tmp_path / "t.txt").write_text("\n".join(GERMAN), encoding="utf-8")
    theirs = {"tokenizer": str(tokenizer_folders["unigram"]), "text": [tmp_path / "t.txt"], "count": 2}
    ranked = expand(str(folders["bytelevel"]), tmp_path / "few", **theirs)
    assert ranked.words == ["ein"]  # the only one in the text


def test_words_with_a_mark_of_their_own_are_counted_whole():
    assert count_words(["हिन्दी, don't x1 हिन्दी"]) == {"हिन्दी": 2, "don": 1, "t": 1}


def test_phrases_where_the_pre_tokenizer_can_keep_them(folders):
    for family, fits in (("wordpiece", True), ("bytelevel", True), ("llama", True), ("unigram", False)):
        _, added, unfit = expand_state(load_tokenizer(folders[family]), ["stone house"])
        assert (added, unfit) == ((["stone house"], []) if fits else ([], ["stone house"])), family


class TestErrors:
    def test_sources(self, folders, tmp_path):
        words = tmp_path / "w.txt"
        words.write_text("zebra\n", encoding="utf-8")
        source, out = str(folders["unigram"]), tmp_path / "out"
        with pytest.raises(InputError, match="words FILE, tokenizer T, or text FILE with count N; found none"):
            expand(source, out)
        with pytest.raises(InputError, match="expected one of the two, found both"):
            expand(source, out, words=words, tokenizer=source)
        with pytest.raises(InputError, match="count: expected at least 1, found 0"):
            expand(source, out, text=[words], count=0)
        with pytest.raises(InputError, match="words that the source tokenizer lacks, found none"):
            expand(source, out, tokenizer=source)
        words.write_text("zebra\nstone house\n", encoding="utf-8")
        with pytest.raises(InputError, match="can keep whole, found stone house, which it splits"):
            expand(source, out, words=words)
        assert not out.exists()

    def test_on_the_command_line(self, folders, tmp_path, capsys):
        with pytest.raises(SystemExit) as exit_:
            main(
                ["expand", "--source_model", str(folders["unigram"]), "--output", str(tmp_path / "x"), "--words", "no"]
            )
        assert exit_.value.code == 2
        assert "--words no" in capsys.readouterr().err


def test_command_line(folders, tmp_path, capsys):
    (tmp_path / "a.txt").write_text("zebra zebra\n", encoding="utf-8")
    (tmp_path / "b.txt").write_text("quagga zebra quagga quagga\n", encoding="utf-8")
    texts = ["--text", str(tmp_path / "a.txt"), str(tmp_path / "b.txt"), "--count", "1"]
    main(["expand", "--source_model", str(folders["llama3"]), "--output", str(tmp_path / "out"), *texts])
    assert "words: quagga" in capsys.readouterr().out
    assert np.array_equal(encode(load_tokenizer(tmp_path / "out"), " quagga"), [402])
