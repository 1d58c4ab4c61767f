import json
import shutil

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from hyperofa.errors import InputError
from hyperofa.tokens.canonical import OVERLAP_KINDS, Token, canonical_tokens, find_overlap, fold_case, load_tokenizer


def no_pieces(text):
    return []


def spelled(tokenizer: PreTrainedTokenizerFast, content: str) -> Token:
    token = canonical_tokens(tokenizer)[tokenizer.convert_tokens_to_ids(content)]
    assert token is not None
    return token


@pytest.mark.parametrize("family", ["wordpiece", "bytelevel", "unigram"])
def test_canonical_tokens_join_to_the_text(tokenizer_folders, family):
    tokenizer = load_tokenizer(tokenizer_folders[family])
    tokens = canonical_tokens(tokenizer)
    text = "the old church above the sea"
    process_group = b"".join(
        (b" " if tokens[i].starts_word else b"") + tokens[i].text
        for i in tokenizer(text, add_special_tokens=False).input_ids
    )
    assert process_group.strip().decode() == text


def test_the_same_word_has_one_spelling_in_three_families(tokenizer_folders):
    contents = {"wordpiece": "the", "bytelevel": "Ġthe", "unigram": "▁the"}
    tokens = {spelled(load_tokenizer(tokenizer_folders[family]), content) for family, content in contents.items()}
    assert tokens == {Token(b"the", True)}


def test_byte_level_tokens_keep_half_characters_apart(tokenizer_folders):
    tokenizer = load_tokenizer(tokenizer_folders["bytelevel"])
    tokens = [token for token in canonical_tokens(tokenizer) if not (token.special or token.starts_word)]
    single = [token.text for token in tokens if len(token.text) == 1]
    assert sorted(single) == [bytes([byte]) for byte in range(256)]


def test_byte_fallback_equals_byte_level(tokenizer_folders):
    vocabulary = {"<unk>": 0, **{f"<0x{byte:02X}>": byte + 1 for byte in range(256)}, "▁the": 257}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[], byte_fallback=True, unk_token="<unk>"))
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    llama_like = canonical_tokens(PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>"))
    gpt_like = canonical_tokens(load_tokenizer(tokenizer_folders["bytelevel"]))
    overlap = find_overlap(gpt_like, llama_like, no_pieces).choose(["exact"])
    assert len(overlap) == 257  # all bytes and "the"
    assert all(
        gpt_like[s][:2] == llama_like[t][:2] for s, t in zip(overlap.source_ids, overlap.target_ids, strict=True)
    )


def test_special_tokens_map_by_role(tokenizer_folders):
    source = load_tokenizer(tokenizer_folders["wordpiece"])
    target = load_tokenizer(tokenizer_folders["unigram"])
    overlap = find_overlap(canonical_tokens(source), canonical_tokens(target), no_pieces).choose(["role"])
    pairs = zip(overlap.target_ids.tolist(), overlap.source_ids.tolist(), strict=True)
    contents = {target.convert_ids_to_tokens(t): source.convert_ids_to_tokens(s) for t, s in pairs}
    assert contents == {"<s>": "[CLS]", "</s>": "[SEP]", "<pad>": "[PAD]", "<unk>": "[UNK]", "<mask>": "[MASK]"}


def test_overlap_kinds():
    source = [Token(b"the", True), Token(b"The", True), Token(b",", False), Token(b",", True), Token(b"USA", True)]
    target = [
        Token(b"the", True),
        Token(b"THE", True),
        Token(b",", False),
        Token(b"ing", True),
        None,
        Token(b"usa", True),
    ]
    encode = {",": [3], " ,": [3]}.get
    overlap = find_overlap(source, target, encode).choose()
    found = zip(overlap.target_ids.tolist(), overlap.source_ids.tolist(), overlap.kinds.tolist(), strict=True)
    assert [(t, s, OVERLAP_KINDS[kind]) for t, s, kind in found] == [
        (0, 0, "exact"), (1, 0, "case"), (2, 3, "symbol"), (5, 4, "case"),
    ]  # fmt: skip
    exact = find_overlap(source, target, encode).choose(["exact"])
    assert (exact.target_ids.tolist(), exact.source_ids.tolist()) == ([0, 2], [0, 2])


def test_source_id_zero_is_a_token_in_every_kind():
    assert find_overlap([Token(b"a", True)], [Token(b"A", True)], no_pieces).choose().source_ids.tolist() == [0]


texts = st.binary(min_size=1, max_size=6)
tokens = st.builds(Token, texts, st.booleans(), st.just(()), st.just(False))


@given(st.lists(tokens, max_size=20), st.lists(tokens, max_size=20))
def test_overlap_pairs_mean_the_same(source, target):
    overlap = find_overlap(source, target, no_pieces).choose()
    assert (overlap.target_ids[1:] > overlap.target_ids[:-1]).all()
    for t, s, kind in zip(overlap.target_ids, overlap.source_ids, overlap.kinds, strict=True):
        name = OVERLAP_KINDS[kind]
        if name == "exact":
            assert target[t] == source[s]
        else:
            assert name == "case"
            assert (fold_case(target[t]), target[t].starts_word) == (fold_case(source[s]), source[s].starts_word)
    missed = set(range(len(target))) - set(overlap.target_ids.tolist())
    assert all(target[t] not in source for t in missed)


def test_folder_without_tokenizer_is_an_input_error(tmp_path):
    with pytest.raises(InputError, match=r"target_tokenizer .*: expected a folder or hub id with a tokenizer"):
        load_tokenizer(tmp_path)


def test_one_token_with_an_id_far_from_the_others_is_refused(tokenizer_folders, tmp_path):
    folder = shutil.copytree(tokenizer_folders["wordpiece"], tmp_path / "tokenizer")
    state = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    state["model"]["vocab"]["far"] = 900_000_000
    (folder / "tokenizer.json").write_text(json.dumps(state), encoding="utf-8")
    with pytest.raises(InputError, match=r"target_tokenizer .*: .*found id 900,000,000 among 201 tokens"):
        load_tokenizer(folder)
