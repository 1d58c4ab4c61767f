import numpy as np
import pytest
import torch
from transformers import GemmaConfig, GemmaModel

from hyperofa.errors import InputError
from hyperofa.models.loading import encode, load_model
from hyperofa.tokens.canonical import load_tokenizer
from hyperofa.training.batches import pad
from hyperofa.training.plm_loss import FrozenPLM, Sentences, sentence_loss

TEXTS = ["the river runs through the old town", "a teacher reads"]


def sentences_of(tokenizer):
    ids, mask = pad([np.array(tokenizer(text).input_ids) for text in TEXTS])
    tokens, slots = np.unique(ids, return_inverse=True)
    table = Sentences(torch.from_numpy(slots.reshape(ids.shape)), torch.from_numpy(mask))
    return torch.from_numpy(ids), torch.from_numpy(mask), torch.from_numpy(tokens), table


@pytest.mark.parametrize("family", ["bert", "roberta", "xlmr"])
def test_true_rows_read_like_the_models_own(model_folders, family):
    plm = FrozenPLM(load_model(model_folders[family]), layers=(0, 1, -1), precision="float32")
    ids, mask, tokens, table = sentences_of(load_tokenizer(model_folders[family]))
    rows = plm.model.get_input_embeddings().weight[tokens].clone().requires_grad_()
    encoded = plm.encode(rows, table)
    assert encoded.shape == (2, 3, 24)
    torch.testing.assert_close(encoded, plm.encode_ids(ids, mask), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(encoded.norm(dim=-1), torch.ones(2, 3))
    distance, divergence = plm.token_losses(rows, table, ids)
    assert distance.item() == pytest.approx(0, abs=1e-5)
    assert divergence.item() == pytest.approx(0, abs=1e-5)
    encoded[0, :, 0].sum().backward()
    assert rows.grad.any()
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in plm.model.parameters())


def test_sentence_vectors_are_those_of_evaluation(model_folders):
    model, tokenizer = load_model(model_folders["bert"]), load_tokenizer(model_folders["bert"])
    ids, mask, _, _ = sentences_of(tokenizer)
    expected = encode(model, tokenizer, TEXTS)
    torch.testing.assert_close(FrozenPLM(model, precision="float32").encode_ids(ids, mask)[:, 0], expected)


def test_scaled_embeddings_are_scaled():
    config = GemmaConfig(
        vocab_size=11, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, head_dim=8,
    )  # fmt: skip
    plm = FrozenPLM(GemmaModel(config), precision="float32")
    ids = torch.tensor([[1, 5, 2]])
    rows = plm.model.get_input_embeddings().weight[ids[0]]
    encoded = plm.encode(rows, Sentences(torch.arange(3)[None], torch.ones(1, 3, dtype=torch.int64)))
    torch.testing.assert_close(encoded, plm.encode_ids(ids, torch.ones_like(ids)), atol=1e-5, rtol=1e-4)


def test_layers_that_are_not_there(model_folders):
    with pytest.raises(InputError, match=r"layers: expected numbers from -3 to 2, found \[3\]"):
        FrozenPLM(load_model(model_folders["bert"]), layers=(1, 3))
    with pytest.raises(InputError, match=r"at least one layer in layers"):
        FrozenPLM(load_model(model_folders["bert"]), layers=())


def test_sentence_loss_equals_plain_numpy():
    rng = np.random.default_rng(0)
    predicted, expected = (rng.standard_normal((n, 2, 6)) for n in (5, 3))
    predicted, expected = (part / np.linalg.norm(part, axis=-1, keepdims=True) for part in (predicted, expected))
    owners = np.array([0, 1, 2, 1, 0])
    losses = []
    for view, owner in zip(predicted, owners, strict=True):
        for layer in range(2):
            cosines = expected[:, layer] @ view[layer]
            contrast = np.log(np.exp(cosines / 0.2).sum()) - cosines[owner] / 0.2
            losses.append(contrast + 0.7 * (1 - cosines[owner]))
    found = sentence_loss(*map(torch.from_numpy, (predicted, expected, owners)), temperature=0.2, cosine_weight=0.7)
    assert found.item() == pytest.approx(np.mean(losses))


def test_gradient_checkpointing_changes_no_gradient(model_folders):
    gradients = []
    for checkpointing in (False, True):
        plm = FrozenPLM(load_model(model_folders["bert"]), precision="float32", gradient_checkpointing=checkpointing)
        _, _, tokens, table = sentences_of(load_tokenizer(model_folders["bert"]))
        rows = plm.model.get_input_embeddings().weight[tokens].clone().requires_grad_()
        plm.encode(rows, table)[0].sum().backward()
        gradients.append(rows.grad)
    assert gradients[0].any()
    torch.testing.assert_close(*gradients)
