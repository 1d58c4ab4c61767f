"""Text by language: what is held out, tokens on disk, the mixture of languages."""

import tracemalloc

import numpy as np
import pytest
from transformers import PreTrainedTokenizerFast

from hyperofa.errors import InputError
from hyperofa.evaluation.task import UNNAMED
from hyperofa.pretraining import corpus as module
from hyperofa.pretraining.blocks import BlockOrder, Blocks, frame_of, language_weights
from hyperofa.pretraining.corpus import Corpus, tokenise, tokenise_lines
from hyperofa.pretraining.language_files import files_by_language
from hyperofa.pretraining.pretrain import pretrain
from hyperofa.runtime.text_files import hold_out, read_lines
from tests.pretraining.conftest import LINES, QUIET, small


@pytest.fixture
def tokenizer(tokenizer_folders):
    return PreTrainedTokenizerFast.from_pretrained(tokenizer_folders["unigram"])


def write(path, lines):
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_tokens_on_disk_are_those_in_memory(tokenizer, tmp_path, monkeypatch):
    """In pieces of a few lines too, with the lines held out that `hold_out` holds out."""
    path = write(tmp_path / "text.txt", [f"{line} {number}" for number, line in enumerate(LINES * 8)])
    kept, held = hold_out(read_lines([path]), 3, 0)
    expected = tokenise_lines(tokenizer, kept, held)
    monkeypatch.setattr(module, "_LINES", 5)
    text = Corpus(files_by_language([path], "--text"), {}, 3, 0)
    found = tokenise(text, tokenizer, tmp_path / "tokens")
    for part in ("train", "val"):
        (ours,), (theirs,) = getattr(found, part), getattr(expected, part)
        assert ours.language == UNNAMED
        assert isinstance(ours.ids, np.memmap)
        for name in ("ids", "sizes", "separators"):
            np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name))
    monkeypatch.setattr(module, "_tokenise", None)  # what is there is not made again
    assert len(tokenise(text, tokenizer, tmp_path / "tokens").train[0]) == len(expected.train[0])


def test_a_text_is_never_in_memory_as_a_whole(tokenizer, tmp_path, monkeypatch):
    """Peak memory does not grow with the text."""
    monkeypatch.setattr(module, "_LINES", 500)
    peaks = []
    for size in (1_500, 6_000):
        path = write(tmp_path / f"{size}.txt", [LINES[0]] * size)
        text = Corpus(files_by_language([path], "--text"), {}, 10, 0)
        tracemalloc.start()
        tokenise(text, tokenizer, tmp_path / str(size))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0]


def test_files_name_their_language(tmp_path):
    found = files_by_language(["deu=a.txt", "b.txt", "deu=c.txt", "zho_Hans=d.txt"], "--text")
    names = {language: [path.name for path in paths] for language, paths in found.items()}
    assert names == {"deu": ["a.txt", "c.txt"], UNNAMED: ["b.txt"], "zho_Hans": ["d.txt"]}


def test_languages_are_drawn_by_their_bytes_to_a_power(tokenizer):
    """XLM-R's formula, by hand; a language that is drawn more often than it has blocks is read again."""
    sizes = [200, 20]
    streams = [tokenise_lines(tokenizer, [LINES[0]] * size, LINES[:1]).train[0] for size in sizes]
    weights = language_weights(streams, 0.3)
    expected = np.array(sizes) ** 0.3
    np.testing.assert_allclose(weights, expected / expected.sum())
    assert language_weights(streams, 1.0) == pytest.approx([10 / 11, 1 / 11])
    assert language_weights(streams, 0.0) == [0.5, 0.5]
    blocks = Blocks(streams, frame_of(tokenizer, 32, "causal"))
    order = BlockOrder(blocks.counts, weights, 3)
    items = order.items(0, 40_000)
    second = items >= blocks.counts[0]
    assert second.mean() == pytest.approx(weights[1], abs=0.01)
    for own, count in ((items[~second], blocks.counts[0]), (items[second] - blocks.counts[0], blocks.counts[1])):
        assert sorted(own[:count].tolist()) == sorted(own[count : 2 * count].tolist()) == list(range(count))
    again = BlockOrder(blocks.counts, weights, 3)
    np.testing.assert_array_equal(again.items(39_000, 39_100), items[39_000:39_100])
    np.testing.assert_array_equal(again.items(10, 20), items[10:20])


def test_blocks_of_several_languages_are_those_of_each(tokenizer):
    streams = [tokenise_lines(tokenizer, [line] * 9, LINES[:1]).train[0] for line in LINES[:2]]
    frame = frame_of(tokenizer, 10, "masked")
    both, alone = Blocks(streams, frame), [Blocks([stream], frame) for stream in streams]
    items = np.array([0, len(alone[0]), len(both) - 1, len(alone[0]) - 1])
    own = (0, 0), (1, 0), (1, len(alone[1]) - 1), (0, len(alone[0]) - 1)
    expected = [alone[language][np.array([item])] for language, item in own]
    for name in ("ids", "mask", "is_target", "sizes"):
        np.testing.assert_array_equal(
            getattr(both[items], name), np.concatenate([getattr(each, name) for each in expected])
        )


def test_each_language_is_measured(folders, tmp_path):
    """As each is alone, and all text as their sum; a language may be measured that is not trained on."""
    files = {name: write(tmp_path / f"{name}.txt", LINES[start::2] * 20) for start, name in enumerate(("eng", "deu"))}
    given = {"training": small(steps=2), "trainer": QUIET}
    both = [f"{name}={path}" for name, path in files.items()]
    found = pretrain(folders["causal"], both, tmp_path / "both", **given).curve
    assert list(found[0].languages) == ["deu", "eng"]
    measured = [f"deu={files['deu']}"]
    alone = pretrain(folders["causal"], both[:1], tmp_path / "alone", measured, **given).curve
    same = pretrain(folders["causal"], both[1:], tmp_path / "same", [*both[:1], *measured], **given).curve
    assert list(alone[0].languages) == ["deu"]
    assert alone[0].languages["deu"] == pytest.approx(same[0].languages["deu"])
    low, high = sorted(found[0].languages.values())
    assert low < found[0].bits_per_byte < high
    assert found[-1].bytes > 0


def test_mistakes(tmp_path):
    one = write(tmp_path / "one.txt", ["a"])
    with pytest.raises(InputError, match="text='deu': expected at least 2 lines"):
        Corpus(files_by_language([f"deu={one}"], "--text"), {}, 5, 0).check()
    with pytest.raises(InputError, match=r"validation_text .*none.txt: expected a text file, found none"):
        Corpus({"deu": [one]}, files_by_language([tmp_path / "none.txt"], "--validation_text"), 5, 0).check()
