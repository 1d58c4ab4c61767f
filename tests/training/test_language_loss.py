import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertModel,
    CohereConfig,
    CohereForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    RobertaConfig,
    RobertaForMaskedLM,
    T5Config,
    T5ForConditionalGeneration,
)

from hyperofa.errors import InputError
from hyperofa.training.language_loss import language_loss
from hyperofa.training.language_views import LanguageViews
from hyperofa.training.plm_loss import FrozenPLM

SIZES = {"vocab_size": 19, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
GEMMA = {**SIZES, "num_key_value_heads": 1, "head_dim": 8, "pad_token_id": 0}
MODELS = {
    "GPT-2, tied": lambda: GPT2LMHeadModel(GPT2Config(vocab_size=19, n_embd=16, n_layer=2, n_head=2)),
    "GPT-NeoX, untied": lambda: GPTNeoXForCausalLM(GPTNeoXConfig(**SIZES, tie_word_embeddings=False)),
    "BERT, transform and bias": lambda: BertForMaskedLM(BertConfig(**SIZES)),
    "BERT, untied": lambda: BertForMaskedLM(BertConfig(**SIZES, tie_word_embeddings=False)),
    "RoBERTa, positions after its pad": lambda: RobertaForMaskedLM(RobertaConfig(**SIZES, pad_token_id=1)),
    "Gemma 2, soft cap": lambda: Gemma2ForCausalLM(Gemma2Config(**GEMMA, final_logit_softcapping=2.0)),
    "Gemma 3, scaled embeddings": lambda: Gemma3ForCausalLM(Gemma3TextConfig(**GEMMA)),
    "Cohere, scaled logits": lambda: CohereForCausalLM(CohereConfig(**SIZES, logit_scale=0.25)),
}


def made(name: str):
    torch.manual_seed(0)
    model = MODELS[name]().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.3)
    return model


@pytest.mark.parametrize("name", MODELS)
def test_with_its_own_rows_a_model_says_what_it_says(name):
    model = made(name)
    ids = torch.tensor([[5, 6, 7, 8], [9, 18, 10, 0]])
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]])
    asked = torch.tensor([[1, 1, 0, 1], [0, 1, 1, 0]]).bool()
    expected = model(input_ids=ids, attention_mask=mask).logits.detach()
    head = model.get_output_embeddings()
    outputs, bias = head.weight.detach().clone(), getattr(head, "bias", None)
    bias = torch.zeros(19) if bias is None else bias.detach().clone()
    order = torch.randperm(19)  # the table has the rows in another order than the vocabulary
    slots = order.argsort()[ids]
    positions = asked.flatten().nonzero()[:, 0]
    views = LanguageViews(slots, mask, positions, slots[asked], [len(positions)], torch.ones(19), bias[order])
    plm = FrozenPLM(model, precision="float32", head=True)
    inputs = model.get_input_embeddings().weight[order].clone().requires_grad_()
    outputs = outputs[order].requires_grad_()
    found = plm.language_logits(inputs, outputs, views)
    torch.testing.assert_close(found, expected[asked][:, order], atol=1e-4, rtol=1e-4)
    found.sum().backward()
    assert inputs.grad.any()
    assert outputs.grad.any()
    # And the model itself is as it was.
    torch.testing.assert_close(model(input_ids=ids, attention_mask=mask).logits, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("tied", [True, False])
def test_an_encoder_decoder_says_what_it_says(tied):
    """Its decoder hears the rows of the same table; T5 scales what a tied head is given."""
    torch.manual_seed(0)
    sizes = {"d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 2, "num_heads": 2}
    model = T5ForConditionalGeneration(T5Config(vocab_size=19, tie_word_embeddings=tied, **sizes)).eval()
    shown, mask = torch.tensor([[5, 6, 7, 8], [9, 18, 10, 0]]), torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]])
    heard, heard_mask = torch.tensor([[0, 3, 4], [0, 12, 0]]), torch.tensor([[1, 1, 1], [1, 1, 0]])
    decoder = {"decoder_input_ids": heard, "decoder_attention_mask": heard_mask}
    expected = model(input_ids=shown, attention_mask=mask, **decoder).logits.detach().flatten(0, 1)[[1, 2, 4]]
    order = torch.randperm(19)
    slots = order.argsort()
    inputs, outputs = (
        layer.weight.detach()[order].clone().requires_grad_()
        for layer in (model.get_input_embeddings(), model.get_output_embeddings())
    )
    nothing = torch.zeros(19)
    views = LanguageViews(
        slots[shown], mask, torch.tensor([1, 2, 4]), slots[:3], [3], nothing, nothing, slots[heard], heard_mask
    )
    found = FrozenPLM(model, precision="float32", head=True).language_logits(inputs, outputs, views)
    torch.testing.assert_close(found, expected[:, order], atol=1e-4, rtol=1e-4)
    found.sum().backward()
    assert inputs.grad[slots[heard[0, 1]]].any()  # what is heard
    assert inputs.grad[slots[shown[0, 0]]].any()  # what is shown


def test_models_whose_head_cannot_be_given_rows():
    with pytest.raises(InputError, match=r"judges: expected sentence for a BertModel, found language: it has no"):
        FrozenPLM(BertModel(BertConfig(**SIZES)), head=True)

    model = made("GPT-2, tied")
    model.lm_head.forward = lambda hidden: hidden @ model.lm_head.weight.T * 2
    with pytest.raises(InputError, match="a head that does more than compare hidden states with its rows"):
        FrozenPLM(model, head=True)


def test_if_all_rows_are_there_the_loss_is_cross_entropy():
    generator = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(5, 7, generator=generator), torch.tensor([0, 6, 3, 3, 1])
    found = language_loss(logits, labels, torch.ones(7))
    torch.testing.assert_close(found, cross_entropy(logits, labels, reduction="none"))


def test_a_row_that_is_no_candidate_plays_no_role():
    generator = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(4, 6, generator=generator).requires_grad_(), torch.tensor([0, 1, 3, 4])
    loss = language_loss(logits, labels, torch.tensor([1, 1, 0, 1, 1, 0.0]))
    expected = cross_entropy(logits[:, [0, 1, 3, 4]], torch.tensor([0, 1, 2, 3]), reduction="none")
    torch.testing.assert_close(loss, expected)
    loss.sum().backward()
    assert not logits.grad[:, [2, 5]].any()
    assert logits.grad.isfinite().all()


def test_the_estimated_partition_function_is_right_on_average():
    rng = np.random.default_rng(0)
    logits, label = rng.standard_normal(12), 4
    chances = rng.uniform(0.2, 0.9, 12)
    found = []
    for _ in range(4000):
        there = rng.random(12) < chances
        there[label] = True
        part = torch.tensor(logits[there])[None]
        loss = language_loss(part, torch.tensor([there[:label].sum()]), torch.tensor(chances[there]))
        found.append(float((loss + logits[label]).exp()))
    assert np.mean(found) == pytest.approx(np.exp(logits).sum(), rel=0.03)
