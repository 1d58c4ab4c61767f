"""What new tokens take: exact numbers, Hewitt's bound for mean rows, and the failure of zero rows."""

import gzip
import json
import re
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedTokenizerFast,
    T5ForConditionalGeneration,
)

from hyperofa.bundle.prepare import prepare
from hyperofa.cli import main
from hyperofa.errors import InputError
from hyperofa.evaluation.evaluate import evaluate
from hyperofa.evaluation.scores import Scores
from hyperofa.evaluation.shift import compare, measure, pair_tokens
from hyperofa.export.export import export
from hyperofa.models.loading import load_model
from hyperofa.models.objectives import longest, mask_tokens, objective_of, special_affixes
from hyperofa.models.vocabulary import read_vocabulary, replace_vocabulary

ENGLISH = [
    "the river runs through the old town and the children swim in it",
    "a teacher reads a letter to the class while the rain falls on the roof",
    "my brother bought bread and milk at the market near the station",
]
WORDS = ["grandmother", "language", "church", "animals"]
SMALL = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24}
FAMILIES = {
    "gpt2": ("gpt2", AutoModelForCausalLM, {"n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 64}),
    "llama": ("llama", AutoModelForCausalLM, SMALL | {"num_key_value_heads": 2, "tie_word_embeddings": False}),
    "gptj": ("gptj", AutoModelForCausalLM, {"n_embd": 16, "n_layer": 1, "n_head": 2, "rotary_dim": 4}),
    "bert": ("bert", AutoModelForMaskedLM, SMALL),
    "roberta": ("roberta", AutoModelForMaskedLM, SMALL),
}


def build(family, rows, scale=0.2, offset=0.0, seed=0):
    """A random model of a family; `offset` is added to about all its logits, through the final norm and the rows."""
    kind, loader, sizes = FAMILIES[family]
    torch.manual_seed(seed)
    model = loader.from_config(AutoConfig.for_model(kind, vocab_size=rows, pad_token_id=0, **sizes)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, scale)
        if offset:
            direction = torch.ones(16)
            last = {"gpt2": "transformer.ln_f", "gptj": "transformer.ln_f"}[family]
            model.get_submodule(last).bias.copy_(direction * offset / 4)
            model.get_output_embeddings().weight.add_(direction / 4)
    return model


def expand(model, count, how, special=None):
    """Add `count` rows: the mean of the old ones with the mean bias, or zeros with bias 0 as transformers resizes."""
    old = read_vocabulary(model)

    def grow(rows):
        new = rows.mean(0, keepdims=True) if how == "mean" else np.zeros_like(rows[:1])
        return np.concatenate([rows, np.repeat(new, count, 0)])

    output = None if old.tied else grow(old.output_rows)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        replace_vocabulary(
            model,
            grow(old.input_rows),
            output_rows=output,
            bias=None if old.bias is None else grow(old.bias),
            special_ids=special or {"pad_token_id": 0},
        )
    return model


@settings(max_examples=40, deadline=None)
@given(
    family=st.sampled_from(sorted(FAMILIES)),
    rows=st.integers(5, 40),
    count=st.integers(1, 60),
    scale=st.floats(0.01, 1.0),
    seed=st.integers(0, 2**16),
)
def test_mean_rows_never_exceed_the_bound(family, rows, count, scale, seed):
    ids = torch.from_numpy(np.random.default_rng(seed).integers(1, rows, (2, 7)))
    shared = torch.arange(rows)
    with torch.no_grad():
        before = build(family, rows, scale, seed=seed)(input_ids=ids).logits.flatten(0, 1)
        after = expand(build(family, rows, scale, seed=seed), count, "mean")(input_ids=ids).logits.flatten(0, 1)
    found = compare(before, after, shared, shared)
    assert (found.kl <= np.log1p(count / rows) + 1e-4).all()
    np.testing.assert_allclose(found.kl, -np.log1p(-found.new_mass), atol=1e-4)
    np.testing.assert_allclose(found.kl, found.log_z_new - found.log_z_old, atol=1e-4)
    np.testing.assert_allclose(found.kept, 1)


def test_numbers_by_hand():
    """Old p = (1/2, 1/4, 1/4), the last token lost; new q = (3, 1, 4)/8, the last token new."""
    old, new = torch.tensor([[2.0, 1, 1]]).log(), torch.tensor([[3.0, 1, 4]]).log()
    found = compare(old, new, torch.tensor([0, 1]), torch.tensor([0, 1]))
    expected = 2 / 3 * np.log((2 / 3) / (3 / 8)) + 1 / 3 * np.log((1 / 3) / (1 / 8))
    assert found.kl[0] == pytest.approx(expected)
    assert found.new_mass[0] == pytest.approx(0.5)
    assert found.kept[0] == pytest.approx(0.75)
    assert (found.log_z_old[0], found.log_z_new[0]) == pytest.approx((np.log(4), np.log(8)))
    assert found.bound(1, 3)[0] == pytest.approx(np.log(1 + 1 / (3 * 0.75)))
    unpaired = compare(old, new, torch.tensor([0, 1, 2]), torch.tensor([2, 1, 0]))
    assert unpaired.new_mass[0] == 0


def test_impossible_tokens_count_for_nothing():
    old = torch.tensor([[0.0, 0, -torch.inf]])
    found = compare(old, old, torch.arange(3), torch.arange(3))
    assert found.kl[0] == pytest.approx(0)


@pytest.mark.parametrize("family", ["gpt2", "gptj"])
def test_zero_rows_take_nearly_all_where_logits_are_very_negative(family):
    ids, rows, count = torch.randint(1, 30, (2, 7), generator=torch.Generator().manual_seed(0)), 30, 5
    with torch.no_grad():
        before = build(family, rows, offset=-20.0)(input_ids=ids).logits.flatten(0, 1)
        assert (before < -5).all()
        by = {}
        for how in ("zeros", "mean"):
            after = expand(build(family, rows, offset=-20.0), count, how)(input_ids=ids).logits.flatten(0, 1)
            by[how] = compare(before, after, torch.arange(rows), torch.arange(rows))
    assert by["zeros"].new_mass.min() > 0.95
    assert by["zeros"].kl.min() > 10 * np.log1p(count / rows)
    assert by["mean"].new_mass.max() < count / rows
    assert by["mean"].kl.max() <= np.log1p(count / rows) + 1e-4


def test_a_masked_model_with_a_very_negative_head_bias():
    """transformers gives new rows bias 0: where the head's bias is far below 0, that alone takes everything."""
    rows, count, ids = 30, 5, torch.randint(1, 30, (2, 7), generator=torch.Generator().manual_seed(0))

    def negative():
        model = build("bert", rows)
        with torch.no_grad():
            model.cls.predictions.bias.sub_(30)
        return model

    with torch.no_grad():
        before = negative()(input_ids=ids).logits.flatten(0, 1)
        for how, least, most in (("zeros", 0.99, 1.0), ("mean", 0.0, count / (rows + count))):
            after = expand(negative(), count, how)(input_ids=ids).logits.flatten(0, 1)
            mass = compare(before, after, torch.arange(rows), torch.arange(rows)).new_mass
            assert least <= mass.min() <= mass.max() <= most + 1e-5


@pytest.fixture(scope="module")
def pairs(tokenizer_folders, model_folders, tmp_path_factory):
    """Source folders and expanded tokenizers, causal and masked."""
    root = tmp_path_factory.mktemp("safety")
    tokenizer = PreTrainedTokenizerFast.from_pretrained(tokenizer_folders["bytelevel"])
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=len(tokenizer), n_embd=16, n_layer=1, n_head=2, n_positions=48, bos_token_id=0, eos_token_id=2
    )
    model = GPT2LMHeadModel(config)
    with torch.no_grad():
        model.transformer.wte.weight.normal_(1, 0.5)  # with the bias below, logits around -16
        model.transformer.ln_f.bias.fill_(-1)
    model.save_pretrained(root / "causal")
    tokenizer.save_pretrained(root / "causal")
    expanded = PreTrainedTokenizerFast.from_pretrained(tokenizer_folders["bytelevel"])
    assert expanded.add_tokens(WORDS) == len(WORDS)
    return {"causal": root / "causal", "masked": model_folders["roberta"]}, expanded


def load(folder):
    return load_model(folder), PreTrainedTokenizerFast.from_pretrained(folder)


@pytest.mark.parametrize("objective", ["causal", "masked"])
def test_an_expansion_is_measured(objective, pairs, tmp_path):
    folders, expanded = pairs
    source = load(folders[objective])
    model = expand(load_model(folders[objective]), len(WORDS), "mean", special=expanded)
    found = measure(source, (model, expanded), ENGLISH)
    numbers = found.as_dict()
    assert objective_of(source[0]) == objective
    assert numbers["setting"] == "expansion"
    assert numbers["text_share"] == 1
    assert numbers["over_bound"] == 0
    assert 0 < numbers["kl_mean"] <= numbers["kl_max"] <= numbers["bound_mean"] + 1e-4
    assert numbers["kl_mean"] == pytest.approx(numbers["log_z_new_mean"] - numbers["log_z_old_mean"], abs=1e-5)
    lengths = [len(source[1](line)["input_ids"]) for line in ENGLISH]
    expected = sum(lengths) - len(ENGLISH) if objective == "causal" else None  # all but </s> are contexts
    assert expected is None or numbers["positions"] == expected
    assert numbers["positions"] < sum(lengths)
    assert set(found.greediest) == set(WORDS)
    found.plot(tmp_path / "histogram.png")
    assert (tmp_path / "histogram.png").read_bytes().startswith(b"\x89PNG")
    assert "new tokens" in str(found)
    with pytest.warns(UserWarning, match=rf"new tokens take {found.new_mass:.1%} of the probability mass"):
        found.warn(limit=found.new_mass / 2)
    found.warn(limit=0.99)


def test_rows_without_a_token_are_shared_while_they_stay_so(pairs):
    source = PreTrainedTokenizerFast.from_pretrained(pairs[0]["causal"])
    size, expanded = len(source), pairs[1]
    appended = pair_tokens(source, source, size + 3, size + 8)
    np.testing.assert_array_equal(appended.source_ids, np.arange(size + 3))
    filled = pair_tokens(source, expanded, size + 5, size + 5)  # four of the five spare rows are tokens now
    np.testing.assert_array_equal(filled.source_ids, [*range(size), size + 4])
    assert filled.expanded


def test_a_replacement_is_measured_on_shared_tokens(model_folders, tokenizer_folders):
    """Target: the same tokens in another order, less a third of them, and copied rows: only what is new changes."""
    source_model, source = load(model_folders["xlmr"])
    state = json.loads(source.backend_tokenizer.to_str())
    kept = [
        0,
        1,
        2,
        3,
        4,
        *np.random.default_rng(0).permutation(np.arange(5, len(source)))[: len(source) * 2 // 3].tolist(),
    ]
    state["model"]["vocab"] = [state["model"]["vocab"][i] for i in kept]
    target = PreTrainedTokenizerFast(
        tokenizer_object=type(source.backend_tokenizer).from_str(json.dumps(state)), **source.special_tokens_map
    )
    chosen = read_vocabulary(source_model).take(kept)
    model = load_model(model_folders["xlmr"])
    extra = np.concatenate([chosen.input_rows, np.tile(read_vocabulary(model).input_rows.mean(0), (7, 1))])
    bias = np.append(chosen.bias, np.repeat(read_vocabulary(model).bias.mean(), 7))
    replace_vocabulary(model, extra, bias=bias, special_ids=target)
    found = measure((source_model, source), (model, target), ENGLISH)
    assert not found.expanded
    assert 0 < found.text_share < 1
    assert found.new_tokens == 7
    divergence = found.divergence
    assert (divergence.kept < 0.99).all()
    np.testing.assert_allclose(divergence.kl, -np.log1p(-divergence.new_mass), atol=1e-4)
    assert (divergence.kl <= divergence.bound(7, len(source)) + 1e-4).all()
    assert "runs of shared tokens" in str(found)


def test_mistakes(pairs, model_folders):
    causal, masked = (load(pairs[0][kind]) for kind in ("causal", "masked"))
    with pytest.raises(InputError, match="model: expected a causal language model like source_model, found Rob"):
        measure(causal, masked, ENGLISH)
    with pytest.raises(InputError, match="text: expected lines with at least 4 successive tokens"):
        measure(masked, load(model_folders["xlmr"]), ["x"])
    t5 = AutoConfig.for_model("t5", d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2, vocab_size=9)
    with pytest.raises(InputError, match="expected a causal or masked language model, found T5ForConditionalGen"):
        objective_of(T5ForConditionalGeneration(t5))
    with pytest.raises(InputError, match="expected data, text or both"):
        evaluate(pairs[0]["causal"], str(pairs[0]["causal"]))


def test_texts_are_framed_and_fit(pairs, model_folders, tokenizer_folders):
    source = load(pairs[0]["causal"])
    assert special_affixes(source[1]) == ([0], [2])
    assert special_affixes(PreTrainedTokenizerFast.from_pretrained(tokenizer_folders["wordpiece"])) == ([2], [3])
    assert longest(*source, 128) == 48
    assert longest(*load(model_folders["roberta"]), 128) == 64 - 2
    assert longest(*load(model_folders["bert"]), 40) == 40


def test_hiding():
    ids, generator = torch.arange(200).reshape(2, 100), np.random.default_rng(0)
    maskable = torch.ones_like(ids, dtype=torch.bool)
    maskable[:, 0] = False
    maskable[1, 1:] = False
    maskable[1, 5] = True
    shown, hidden = mask_tokens(ids, maskable, 999, None, generator)
    assert torch.equal(hidden, shown == 999)
    assert hidden[1].nonzero().tolist() == [[5]]
    assert 8 <= hidden[0].sum() <= 25
    many = torch.full((20, 500), 7)
    shown, hidden = mask_tokens(many, torch.ones_like(many, dtype=torch.bool), 999, torch.tensor([3, 4]), generator)
    shares = [(shown[hidden] == value).float().mean().item() for value in (999, 7)]
    assert shares == pytest.approx([0.8, 0.1], abs=0.05)
    assert set(shown[hidden].unique().tolist()) == {3, 4, 7, 999}
    assert (shown[~hidden] == 7).all()


@pytest.fixture(scope="module")
def bundles(pairs, vector_file, tmp_path_factory):
    """Bundles of the expanded tokenizer for both models."""
    root = tmp_path_factory.mktemp("expanded")
    pairs[1].save_pretrained(root / "tokenizer")
    for name, folder in pairs[0].items():
        prepare(str(folder), str(root / "tokenizer"), [str(vector_file)], root / name)
    return root


@pytest.mark.parametrize("objective", ["causal", "masked"])
def test_mean_exports_stay_under_the_bound(objective, bundles, tmp_path):
    """Through the whole pipeline, with the head's bias of the masked model."""
    text = tmp_path / "text.txt"
    text.write_text("\n".join(ENGLISH) + "\n", encoding="utf-8")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # four tokens of 400 may take more than 1 %
        export(bundles / objective, "mean", tmp_path / "out", text=[text])
    safety = json.loads((tmp_path / "out" / "manifest.json").read_text())["safety"]
    assert safety["setting"] == "expansion"
    assert safety["over_bound"] == 0
    assert 0 < safety["kl_max"] <= safety["bound_mean"] + 1e-4
    assert safety["kl_mean"] == pytest.approx(safety["log_z_new_mean"] - safety["log_z_old_mean"], abs=1e-4)


def test_exports_warn_and_evaluate_measures(pairs, bundles, tmp_path, capsys):
    """Zeros on a model with very negative logits: a warning with the number; mean: none above m/n."""
    text = tmp_path / "text.txt"
    text.write_text("\n".join(ENGLISH) + "\n", encoding="utf-8")
    export(bundles / "causal", "mean", tmp_path / "mean")
    assert json.loads((tmp_path / "mean" / "manifest.json").read_text())["safety"] is None
    with pytest.warns(UserWarning, match=r"4 new tokens take \d+\.\d% of the probability mass \(more than 1%\)"):
        export(bundles / "causal", "zeros", tmp_path / "zeros", text=[text])
    recorded = json.loads((tmp_path / "zeros" / "manifest.json").read_text())["safety"]
    new = read_vocabulary(load_model(tmp_path / "zeros")).input_rows[
        len(PreTrainedTokenizerFast.from_pretrained(pairs[0]["causal"])) :
    ]
    assert not new.any()
    command = ["evaluate", "--model", str(tmp_path / "zeros"), "--source_model", str(pairs[0]["causal"])]
    main([*command, "--text", str(text), "--output", str(tmp_path / "scores.json")])
    printed = capsys.readouterr().out
    scores = Scores.load(tmp_path / "scores.json")
    assert list(scores) == ["shift"]
    assert scores["shift"]["new_mass_mean"] == {"text": pytest.approx(recorded["new_mass_mean"])}
    assert re.search(rf"KL\(old ‖ new\), mean \(nats\) +{scores['shift']['kl_mean']['text']:.4f}\n", printed)
    assert "(setting expansion, positions " in printed
    found = json.loads((tmp_path / "scores.json").read_text())
    greediest = found["safety"].pop("greediest"), recorded.pop("greediest")
    assert greediest[0] == pytest.approx(greediest[1])
    assert found["safety"] == pytest.approx(recorded)  # as scripts of earlier versions read it
    assert "accuracy" not in found
    assert (tmp_path / "scores.png").exists()
    main([*command, "--text", str(text), "--output", str(tmp_path / "scores.json")])  # replaces its own files
    files = {"thesis.json": "thesis.json", "notes.txt": "notes.txt", "plot.json": "plot.png", "plot.png": "plot.png"}
    for output, mine in files.items():
        (tmp_path / mine).write_text('{"metrics": "years of work"}')
        with pytest.raises(SystemExit, match="2"):
            main([*command, "--text", str(text), "--output", str(tmp_path / output)])
        assert f"--output {tmp_path / output}: expected " in capsys.readouterr().err
        assert (tmp_path / mine).read_text() == '{"metrics": "years of work"}'
    main(
        ["evaluate", "--model", str(tmp_path / "mean"), "--source_model", str(pairs[0]["causal"]), "--text", str(text)]
    )
    assert re.search(r"share of positions over the bound +0\.0000\n", capsys.readouterr().out)


def test_evaluate_on_data_alone_says_what_it_said(pairs, tmp_path):
    with gzip.open(tmp_path / "heldout.tsv.gz", "wt", encoding="utf-8") as file:
        file.writelines(f"{lang}\t{i}\t{line}\n" for lang in ("eng", "deu") for i, line in enumerate(ENGLISH))
    folder = str(pairs[0]["masked"])
    scores = evaluate(Path(folder), folder, tmp_path, output=tmp_path / "scores.json")
    assert scores == Scores.load(tmp_path / "scores.json")
    assert {metric: dict(of) for metric, of in scores["SR-B"].items()} == {
        metric: {"eng": 100.0, "deu": 100.0} for metric in ("top1", "top10")
    }
    found = json.loads((tmp_path / "scores.json").read_text())
    assert found["accuracy"] == {"SR-B": {"eng": [100, 100], "deu": [100, 100]}}
    assert "safety" not in found
