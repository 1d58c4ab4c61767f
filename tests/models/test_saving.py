"""What is written opens elsewhere as it was meant, or is not written at all."""

import pytest
import torch

from hyperofa.errors import InputError
from hyperofa.models.loading import load_model
from hyperofa.models.saving import save_model
from tests.models.families import EVERY, FAMILIES, FURTHER, SIZE, build, case_id, kept, open_elsewhere, outputs, text_of


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    """By case and kind, what transformers alone finds in the folder of a model."""
    root = tmp_path_factory.mktemp("written")
    folders = []
    for case in EVERY:
        for kind, model in zip(("dense", "factorised"), kept(*case), strict=True):
            folders.append((root / f"{case_id(case)}-{kind}", (FAMILIES | FURTHER)[case[0]][1].__name__))
            save_model(model, folders[-1][0])
    found = open_elsewhere(folders, tmp_path_factory.mktemp("code"))
    return {folder.removeprefix(f"{root}/"): each for folder, each in found.items()}


@pytest.mark.parametrize("case", EVERY, ids=case_id)
def test_transformers_alone_opens_what_was_loaded_from_disk_changed_and_saved(case, opened):
    expected = outputs(kept(*case)[0], text_of(SIZE, 1))[0]
    for kind in ("dense", "factorised", "factorised-again"):
        found = opened[f"{case_id(case)}-{kind}"]
        assert "error" not in found
        assert found["lost"] == {}
        torch.testing.assert_close(torch.tensor(found["logits"]), expected, atol=2e-5, rtol=2e-5)


def lose_a_name(model):
    """Two names of one storage, of which saving keeps one."""
    model.lm_head.decoder.bias = model.lm_head.bias


def forget_the_head(model):
    model._keys_to_ignore_on_save = {"lm_head.dense.weight"}


def change_what_is_not_saved(model):
    model.roberta.embeddings.position_ids += 1


def shadow_a_weight(model):
    model.register_parameter("more", torch.nn.Parameter(torch.zeros(3)))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lose_a_name, r"1 missing \(lm_head.decoder.bias\), 1 with other values \(lm_head.decoder.bias\)"),
        (forget_the_head, r"1 missing \(lm_head.dense.weight\), 1 with other values"),
        (change_what_is_not_saved, r"1 with other values \(roberta.embeddings.position_ids\)$"),
        (shadow_a_weight, r"1 unexpected \(more\)$"),
    ],
)
def test_what_would_load_as_another_model_is_refused(spoil, message, tmp_path):
    build("roberta", tied=False).save_pretrained(tmp_path / "source")
    model = load_model(tmp_path / "source")
    spoil(model)
    with pytest.raises(InputError, match=f"RobertaForMaskedLM is not supported: .* would load weights {message}"):
        save_model(model, tmp_path / "out")


def test_nothing_is_said_of_numbers_that_are_none(tmp_path):
    """That a model of NaN is no good is for others to say: it is the one that was meant."""
    model = build("gpt2")
    with torch.no_grad():
        model.transformer.ln_f.weight[0] = float("nan")
    save_model(model.half(), tmp_path)
    assert load_model(tmp_path).transformer.ln_f.weight.isnan().sum() == 1
