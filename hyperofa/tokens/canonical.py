"""One canonical spelling for the tokens of every tokenizer, and the overlap of two vocabularies.

Tokenizers spell the same string differently: `##ing` (WordPiece), `Ġthe` (byte-level BPE), `▁the` (SentencePiece),
`<0xC3>` (byte fallback), `[CLS]` against `<s>`. A `Token` is what they all mean: bytes, whether a word starts there,
and the roles of a special token. Comparing bytes instead of decoded strings keeps half-character tokens apart.
"""

import json
import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from string import ascii_uppercase
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from tokenizers import Tokenizer as BackendTokenizer
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from hyperofa.errors import InputError
from hyperofa.runtime.trust import REMOTE_CODE_FLAG, remote_code_trusted

OverlapKind = Literal["role", "symbol", "exact", "case", "native"]
OVERLAP_KINDS: tuple[OverlapKind, ...] = get_args(OverlapKind)
SPELLED_KINDS = OVERLAP_KINDS[:-1]
"""Those that the two vocabularies tell; `native` takes words too."""

A_MODEL, _A_TOKENIZER = "a Hugging Face model", "a tokenizer"

Family = Literal["wordpiece", "bytelevel", "wordlevel", "sentencepiece"]

ROLES = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")
# BERT opens a text with [CLS] and closes it with [SEP]; GPT, Llama and T5 use bos and eos for the same.
_ROLE_STAND_INS = {"bos": "cls", "cls": "bos", "eos": "sep", "sep": "eos"}
_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")
_SENTENCEPIECE_SPACE = "▁"
_HOLES = 100_000  # ids without a token, beyond as many as there are tokens


class Token(NamedTuple):
    """The canonical form of one vocabulary entry.

    Attributes:
        text: UTF-8 bytes without the tokenizer's marks; possibly half a character.
        starts_word: a word starts here (a space or the text's edge comes before it).
        roles: for a special token, its roles (a subset of `ROLES`), most specific use first; else empty.
        special: an added special token, whether or not it has a role.
    """

    text: bytes
    starts_word: bool
    roles: tuple[str, ...] = ()
    special: bool = False


def load_tokenizer(
    path: str | Path, flag: str = "--target_tokenizer", trust_remote_code: bool | None = None
) -> PreTrainedTokenizerBase:
    """Load a fast Hugging Face tokenizer from a folder or the hub.

    Args:
        path: folder with a tokenizer, or a hub id.
        flag: command-line flag named in errors.
        trust_remote_code: run code from the folder, if it has any; `None` for what the command line says: no, unless
            told otherwise.

    Raises:
        InputError: nothing there, no vocabulary, or no fast (Rust) backend.
    """
    trusted = remote_code_trusted() if trust_remote_code is None else trust_remote_code
    with expected_at(path, flag, _A_TOKENIZER):
        tokenizer = AutoTokenizer.from_pretrained(str(path), trust_remote_code=trusted)
    if getattr(tokenizer, "backend_tokenizer", None) is None or len(tokenizer) == 0:
        raise InputError(f"{flag} {path}: expected a fast tokenizer (tokenizer.json), found {type(tokenizer).__name__}")
    if tokenizer.get_vocab().keys() <= set(tokenizer.all_special_tokens):  # made up from a model's config.json alone
        raise InputError(f"{flag} {path}: expected a folder or hub id with a tokenizer, found only special tokens")
    count, highest = len(tokenizer), max(tokenizer.get_vocab().values())
    if highest >= 2 * count + _HOLES:
        raise InputError(
            f"{flag} {path}: expected ids without large holes, for each id is an embedding row, found id {highest:,} "
            f"among {count:,} tokens"
        )
    tokenizer.init_kwargs.pop("local_files_only", None)  # says how it was loaded, and would be saved with it
    return tokenizer


@contextmanager
def expected_at(path: str | Path, flag: str, wanted: str) -> Iterator[None]:
    """While transformers loads from a folder or the hub: any error, of a dozen kinds, means that nothing is there.

    Args:
        path: folder or hub id.
        flag: what the error begins with, such as the flag that said so.
        wanted: what should be there.

    Raises:
        InputError: it is not.
    """
    try:
        yield
    except Exception as error:
        raise InputError(f"{flag} {path}: expected a folder or hub id with {wanted}; {_reason_of(error)}") from None


def _reason_of(error: Exception) -> str:
    """In a line, why transformers could not load something; with our flag where it is the code that comes with it."""
    if "trust_remote_code" in str(error):
        return f"it needs code of its own, which is run only with {REMOTE_CODE_FLAG} true; read that code first"
    first, _, rest = (str(error).strip() or type(error).__name__).partition("\n")
    return f"{first} {' '.join(rest.split())}" if first.rstrip().endswith(":") else first


def bare_backend(tokenizer: PreTrainedTokenizerBase) -> BackendTokenizer:
    """A copy of the Rust tokenizer that neither truncates nor pads."""
    backend = BackendTokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    backend.no_truncation()
    backend.no_padding()
    return backend


def plain_encoder(tokenizer: PreTrainedTokenizerBase) -> Callable[[str], Sequence[int]]:
    """From text to the ids of all its tokens, without special ones."""
    backend = bare_backend(tokenizer)
    return lambda text: backend.encode(text, add_special_tokens=False).ids


def canonical_tokens(tokenizer: PreTrainedTokenizerBase) -> list[Token | None]:
    """The canonical form of every vocabulary entry.

    Returns:
        A list indexed by token id; `None` where the vocabulary has a hole.

    Raises:
        InputError: the tokenizer marks words in a way that is not known here.
    """
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    spell = _speller(state)
    vocabulary: dict[str, int] = tokenizer.get_vocab()
    added = {token["content"]: token["single_word"] for token in state["added_tokens"]}
    special = {token["content"] for token in state["added_tokens"] if token["special"]}
    special.update(tokenizer.all_special_tokens)
    roles: dict[str, tuple[str, ...]] = {}
    for role in ROLES:
        content = getattr(tokenizer, f"{role}_token", None)
        if content is not None:
            roles[content] = (*roles.get(content, ()), role)
    tokens: list[Token | None] = [None] * (max(vocabulary.values()) + 1)
    for content, token_id in vocabulary.items():
        if content in special:
            tokens[token_id] = Token(content.encode(), False, roles.get(content, ()), special=True)
        elif content in added:
            tokens[token_id] = Token(content.strip().encode(), added[content] or content.startswith(" "))
        else:
            tokens[token_id] = spell(content)
    return tokens


def _speller(state: dict[str, Any]) -> Callable[[str], Token]:
    """The function from a token's string to its `Token`, for one tokenizer's JSON state."""
    model, family = state["model"], tokenizer_family(state)
    if family == "wordpiece":
        prefix = model["continuing_subword_prefix"]
        return lambda content: (
            Token(content.removeprefix(prefix).encode(), False)
            if content.startswith(prefix) and content != prefix
            else Token(content.encode(), True)
        )
    if family == "bytelevel":
        return _spell_byte_level
    if family == "wordlevel":
        return lambda content: Token(content.encode(), True)
    byte_fallback = bool(model.get("byte_fallback"))
    return lambda content: _spell_sentencepiece(content, byte_fallback)


def tokenizer_family(state: dict[str, Any]) -> Family:
    """How a tokenizer marks words, from its JSON state.

    Raises:
        InputError: in a way that is not known here.
    """
    model = state["model"]
    parts = set(_component_types(state["pre_tokenizer"])) | set(_component_types(state["decoder"]))
    if model["type"] == "WordPiece":
        return "wordpiece"
    if "ByteLevel" in parts:
        return "bytelevel"
    if model["type"] == "WordLevel":
        return "wordlevel"
    if model["type"] == "Unigram" or _mentions_metaspace(state):
        return "sentencepiece"
    raise InputError(
        f"expected a tokenizer of WordPiece, byte-level BPE or SentencePiece kind (word starts marked by ▁), found "
        f"{model['type']} with {sorted(parts) or 'no pre-tokenizer'}; convert it or give another --target_tokenizer"
    )


def _component_types(component: dict[str, Any] | None) -> list[str]:
    """Type names of a pre-tokenizer or decoder and of what it is a sequence of."""
    if component is None:
        return []
    inner = component.get("pretokenizers") or component.get("decoders") or []
    return [component["type"], *(name for part in inner for name in _component_types(part))]


def _mentions_metaspace(state: dict[str, Any]) -> bool:
    """Whether spaces become ▁ in the pre-tokenizer (XLM-R), the normaliser (Llama) or the decoder."""
    parts = json.dumps([state[name] for name in ("normalizer", "pre_tokenizer", "decoder")], ensure_ascii=False)
    return _SENTENCEPIECE_SPACE in parts or "Metaspace" in parts


@cache
def _bytes_of_characters() -> dict[str, int]:
    """GPT-2's printable stand-in character of each byte, inverted."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    hidden = [byte for byte in range(256) if byte not in set(printable)]
    return {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(hidden)}


def _spell_byte_level(content: str) -> Token:
    table = _bytes_of_characters()
    if any(character not in table for character in content):
        return Token(content.encode(), False)
    text = bytes(table[character] for character in content)
    return Token(text[1:], True) if text.startswith(b" ") and len(text) > 1 else Token(text, False)


def _spell_sentencepiece(content: str, byte_fallback: bool) -> Token:
    match = _BYTE_TOKEN.fullmatch(content) if byte_fallback else None
    if match is not None:
        return Token(bytes([int(match[1], 16)]), False)
    if content.startswith(_SENTENCEPIECE_SPACE) and len(content) > 1:
        return Token(content[1:].replace(_SENTENCEPIECE_SPACE, " ").encode(), True)
    return Token(content.replace(_SENTENCEPIECE_SPACE, " ").encode(), False)


def fold_case(token: Token) -> bytes:
    """The token's bytes in lower case, as they are where they are no valid UTF-8."""
    try:
        return token.text.decode().lower().encode()
    except UnicodeDecodeError:
        return token.text


def text_of(token: Token | None) -> str | None:
    """What a token spells; `None` for holes, special tokens and pieces of characters."""
    if token is None or token.special:
        return None
    try:
        return token.text.decode()
    except UnicodeDecodeError:
        return None


def is_symbol(token: Token) -> bool:
    """Whether the token has neither letters nor digits: punctuation, currency, emoji."""
    text = text_of(token)
    return bool(text and text.strip()) and not any(unicodedata.category(c)[0] in "LMN" for c in text or "")


@dataclass(frozen=True)
class Overlap:
    """Target tokens that are in the source vocabulary too; one pair for each way in which a token is found there.

    Attributes:
        target_ids: `(N,)` int64, ascending.
        source_ids: `(N,)` int64, the source token of each.
        kinds: `(N,)` uint8, ascending for one target token, index into `OVERLAP_KINDS`.
    """

    target_ids: np.ndarray
    source_ids: np.ndarray
    kinds: np.ndarray

    def choose(self, kinds: Sequence[OverlapKind] = OVERLAP_KINDS) -> "Overlap":
        """One pair for each target token that is found in one of these ways: the first in `OVERLAP_KINDS`."""
        allowed = np.flatnonzero(np.isin(self.kinds, [OVERLAP_KINDS.index(kind) for kind in kinds]))
        first = allowed[np.unique(self.target_ids[allowed], return_index=True)[1]]
        return Overlap(self.target_ids[first], self.source_ids[first], self.kinds[first])

    def __len__(self) -> int:
        return len(self.target_ids)


def find_overlap(
    source: Sequence[Token | None],
    target: Sequence[Token | None],
    encode: Callable[[str], Sequence[int]],
) -> Overlap:
    """Pair target tokens with the source tokens that mean the same.

    The kinds, best first: `role` (special tokens, by what they do), `symbol` (neither letters nor digits, and the
    source tokenizer makes one token of it: WordPiece never emits the `##,` that is spelled like SentencePiece's `,`, so
    that row was never trained), `exact` (bytes and word start), `case` (the same in lower case; of several source
    tokens the lower-case one, then the lowest id).

    Args:
        source: canonical source tokens by id.
        target: canonical target tokens by id.
        encode: the source tokenizer, from text to token ids without special ones.

    Returns:
        A pair for each target token and kind that is found.
    """
    exact: dict[tuple[bytes, bool], int] = {}
    folded: dict[tuple[bytes, bool], int] = {}
    roles: dict[str, int] = {}
    contents: dict[bytes, int] = {}
    for source_id, token in enumerate(source):
        if token is None:
            continue
        if token.special:
            contents[token.text] = source_id
            for role in token.roles:
                roles.setdefault(role, source_id)
            continue
        exact.setdefault((token.text, token.starts_word), source_id)
        key = (fold_case(token), token.starts_word)
        if key not in folded or (token.text == key[0] and _text_of(source, folded[key]) != key[0]):
            folded[key] = source_id
    unknown = {roles["unk"]} if "unk" in roles else set()
    for role, stand_in in _ROLE_STAND_INS.items():
        if role not in roles and stand_in in roles:
            roles[role] = roles[stand_in]

    def look_up(token: Token, kind: OverlapKind) -> int | None:
        if kind == "role":
            by_role = next((roles[role] for role in token.roles if role in roles), None)
            return contents.get(token.text) if by_role is None and token.special else by_role
        if token.special:
            return None
        if kind == "exact":
            return exact.get((token.text, token.starts_word))
        if kind == "case":
            return folded.get((fold_case(token), token.starts_word))
        pieces = encode((" " if token.starts_word else "") + token.text.decode()) if is_symbol(token) else ()
        return pieces[0] if len(pieces) == 1 and pieces[0] not in unknown else None

    rows = []
    for target_id, token in enumerate(target):
        if token is None:
            continue
        for kind in SPELLED_KINDS:
            found = look_up(token, kind)
            if found is not None:
                rows.append((target_id, found, OVERLAP_KINDS.index(kind)))
    table = np.array(rows, np.int64).reshape(-1, 3)
    return Overlap(table[:, 0], table[:, 1], table[:, 2].astype(np.uint8))


def ignores_case(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether it reads capital letters as small ones, as those of uncased models do."""
    encode, letters = plain_encoder(tokenizer), " ".join(ascii_uppercase)
    return list(encode(letters)) == list(encode(letters.lower()))


def extends(target: PreTrainedTokenizerBase, source: PreTrainedTokenizerBase) -> bool:
    """Whether a tokenizer has every token of another, spelled alike, under the same id (`hyperofa expand`).

    Args:
        target: the one that may have more.
        source: the other.
    """
    return source.get_vocab().items() <= target.get_vocab().items()


def with_identity(overlap: Overlap, size: int) -> Overlap:
    """Pair the first `size` tokens with themselves as `exact`, and with nothing else, whatever they look like.

    An extended vocabulary keeps its old rows so, also those of twins and of tokens that were never used.

    Args:
        overlap: of the two vocabularies.
        size: tokens of the source.
    """
    old, later = np.arange(size), overlap.target_ids >= size
    kind = np.full(size, OVERLAP_KINDS.index("exact"), np.uint8)
    return Overlap(
        np.concatenate([old, overlap.target_ids[later]]),
        np.concatenate([old, overlap.source_ids[later]]),
        np.concatenate([kind, overlap.kinds[later]]),
    )


def _text_of(tokens: Sequence[Token | None], token_id: int) -> bytes:
    token = tokens[token_id]
    return b"" if token is None else token.text
