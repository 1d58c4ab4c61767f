import gzip
import json
import math
import random
import re

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoTokenizer

from hyperofa.cli import main
from hyperofa.errors import InputError
from hyperofa.evaluation.evaluate import evaluate
from hyperofa.evaluation.retrieval import RetrievalSet, find_hits, read_sets
from hyperofa.evaluation.scores import Scores
from hyperofa.models.loading import encode, load_model
from hyperofa.tokens.canonical import load_tokenizer
from tests.conftest import ENGLISH, GERMAN


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Held-out verses in three languages and Tatoeba pairs in one, in the layout that the command reads."""
    folder = tmp_path_factory.mktemp("sentences")
    (folder / "tatoeba").mkdir()
    rng = random.Random(0)
    english = [" ".join(rng.sample(line.split(), 5)) for line in ENGLISH * 2]
    foreign = {
        "deu": [" ".join(rng.sample(line.split(), 4)) for line in GERMAN * 2],
        "eng": english,
        "nob": english[::-1],
    }
    rows = [f"{language}\t{verse}\t{text}" for language, texts in foreign.items() for verse, text in enumerate(texts)]
    (folder / "heldout.tsv.gz").write_bytes(gzip.compress("\n".join(rows).encode()))
    pairs = [f"{german}\t{line}" for german, line in zip(GERMAN * 2, english, strict=True)]
    (folder / "tatoeba" / "deu-eng.tsv.gz").write_bytes(gzip.compress("\n".join(pairs).encode()))
    return folder, english, foreign


def slow_vectors(folder, texts, layer):
    """One text at a time, without padding."""
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    rows = []
    with torch.no_grad():
        for text in texts:
            batch = tokenizer(text, return_tensors="pt", return_token_type_ids=False)
            hidden = model(**batch, output_hidden_states=True).hidden_states[layer][0].numpy().astype(np.float64)
            rows.append(hidden.mean(0) / np.linalg.norm(hidden.mean(0)))
    return np.array(rows)


def slow_accuracy(queries, keys, slack=0.0):
    """Top-1 and top-10; with slack, as it would be if keys that near to the right one lost (or, below 0, won)."""
    ranks = [
        sum(query @ key > query @ keys[i] + slack for j, key in enumerate(keys) if j != i)
        for i, query in enumerate(queries)
    ]
    return [100 * np.mean([rank < top for rank in ranks]) for top in (1, 10)]


@pytest.mark.parametrize("layer", [-1, 1])
def test_scores_equal_brute_force(layer, data, model_folders, bundles, tmp_path, capsys):
    folder, english, foreign = data
    model = tmp_path / "model"
    main(["export", "--bundle", str(bundles["bert"]), "--method", "subtokens", "--output", str(model)])
    capsys.readouterr()
    flags = ["--model", str(model), "--source_model", str(model_folders["bert"]), "--data", str(folder)]
    main(["evaluate", *flags, "--layer", str(layer), "--output", str(tmp_path / "scores.json")])
    printed = capsys.readouterr().out
    scores = Scores.load(tmp_path / "scores.json")
    keys = slow_vectors(model_folders["bert"], english, layer)
    for language, texts in foreign.items():
        # Sentences of a random model lie close together: float32 in batches may rank near ties another way.
        vectors = slow_vectors(model, texts, layer)
        top1, top10 = scores["SR-B"]["top1"][language], scores["SR-B"]["top10"][language]
        lowest, highest = slow_accuracy(vectors, keys, -1e-6), slow_accuracy(vectors, keys, 1e-6)
        assert lowest[0] - 1e-3 <= top1 <= highest[0] + 1e-3
        assert lowest[1] - 1e-3 <= top10 <= highest[1] + 1e-3
        assert highest[0] - lowest[0] < 50
        assert re.search(rf"^{language} +{top1:.1f} +{top10:.1f}$", printed, re.MULTILINE)
        hits = scores.hits["SR-B"]["top1"][language]
        assert len(hits) == len(texts)
        assert 100 * hits.count("1") / len(hits) == pytest.approx(top1)
    german = slow_vectors(model, GERMAN * 2, layer)
    lowest, highest = slow_accuracy(german, keys, -1e-6), slow_accuracy(german, keys, 1e-6)
    for metric, low, high in zip(("top1", "top10"), lowest, highest, strict=True):
        assert low - 1e-3 <= scores["SR-T"][metric]["deu"] <= high + 1e-3
    top1, top10 = (np.mean([scores["SR-B"][metric][name] for name in ("deu", "nob")]) for metric in ("top1", "top10"))
    assert re.search(rf"^mean of 2 +{top1:.1f} +{top10:.1f}$", printed, re.MULTILINE)
    # Scripts of earlier versions read pairs.
    found = json.loads((tmp_path / "scores.json").read_text(encoding="utf-8"))
    assert found["accuracy"]["SR-B"]["deu"] == [scores["SR-B"][metric]["deu"] for metric in ("top1", "top10")]
    assert found["means"]["SR-B"] == pytest.approx([top1, top10])
    assert (found["layer"], found["sentences"]) == (layer, 500)


def test_the_source_model_finds_its_own_sentences(data, model_folders, tmp_path):
    flags = ["--model", str(model_folders["bert"]), "--source_model", str(model_folders["bert"])]
    main(["evaluate", *flags, "--data", str(data[0]), "--languages", "eng", "--output", str(tmp_path / "s.json")])
    assert json.loads((tmp_path / "s.json").read_text())["accuracy"] == {"SR-B": {"eng": [100, 100]}}


def test_accuracy_counts_the_right_rows():
    keys = torch.eye(20)
    queries = keys.roll(1, 0) + 0.1 * keys
    assert [hits.mean() for hits in find_hits(keys, keys)] == [1, 1]
    assert [hits.mean() for hits in find_hits(queries, keys)] == [0, 1]
    assert [hits.mean() for hits in find_hits(keys[:3], keys[:3])] == [1, 1]  # fewer sentences than ten
    queries[0, 0] = math.nan
    assert all(hits.isnan().all() for hits in find_hits(queries, keys))


def test_sets_pair_verses_by_number(tmp_path):
    rows = 'eng\ta\tone\neng\tb\ttwo\neng\tc\tthree\ndeu\tc\tdrei\ndeu\ta\t"eins"\n'
    (tmp_path / "heldout.tsv.gz").write_bytes(gzip.compress(rows.encode()))
    assert read_sets(tmp_path, 2) == [
        RetrievalSet("SR-B", "eng", ["one", "two"], ["one", "two"]),
        RetrievalSet("SR-B", "deu", ['"eins"', "drei"], ["one", "three"]),
    ]


def test_a_layer_that_is_none(data, model_folders, tmp_path):
    with pytest.raises(InputError, match=r"layer: expected a number from -\d to \d, found 99"):
        evaluate(model_folders["bert"], model_folders["bert"], data[0], layer=99)


def test_sentences_longer_than_the_model_has_positions_for(model_folders):
    model, tokenizer = load_model(model_folders["bert"]), load_tokenizer(model_folders["bert"])
    positions = model.config.max_position_embeddings
    assert positions < 128
    assert encode(model, tokenizer, ["river " * 200]).shape == (1, model.config.hidden_size)
