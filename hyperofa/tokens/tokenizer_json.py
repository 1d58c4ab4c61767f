"""The state of a fast tokenizer (`tokenizer.json`) as plain data: read it, take it apart, write it back as it is."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer as BackendTokenizer
from transformers import PreTrainedTokenizerBase

from hyperofa.errors import InputError
from hyperofa.runtime.folders import read_json, write_json
from hyperofa.tokens.canonical import load_tokenizer

State = dict[str, Any]

# Takes tokenizer.json literally. Named classes (GPT2Tokenizer, LlamaTokenizer …) rebuild the tokenizer from its
# vocabulary and merges and lose whatever else the file says.
_LITERAL_CLASS = "TokenizersBackend"
_KEPT_FILES = ("tokenizer.json", "tokenizer_config.json")


def read_state(tokenizer: PreTrainedTokenizerBase) -> State:
    """What `tokenizer.json` of this tokenizer holds."""
    return json.loads(tokenizer.backend_tokenizer.to_str())


def backend_of(state: State) -> BackendTokenizer:
    """The Rust tokenizer of a state, without truncation and padding."""
    backend = BackendTokenizer.from_str(json.dumps(state, ensure_ascii=False))
    backend.no_truncation()
    backend.no_padding()
    return backend


def is_byte(content: str) -> bool:
    """Whether a token stands for one byte (`<0xC3>`)."""
    return len(content) == 6 and content.startswith("<0x")


def model_vocabulary(state: State) -> dict[str, int]:
    """Ids of the model's own tokens, those that were added apart."""
    vocabulary = state["model"]["vocab"]
    if isinstance(vocabulary, list):
        return {content: token_id for token_id, (content, _) in enumerate(vocabulary)}
    return dict(vocabulary)


def components(part: State | None) -> list[State]:
    """The parts of a normaliser, pre-tokenizer, post-processor or decoder in their order; empty for none."""
    if part is None:
        return []
    for name in ("normalizers", "pretokenizers", "processors", "decoders"):
        if part["type"] == "Sequence" and name in part:
            return [inner for one in part[name] for inner in components(one)]
    return [part]


def sequence(parts: list[State], name: str) -> State:
    """One component of several.

    Args:
        parts: at least one.
        name: the field that holds them (`pretokenizers`).
    """
    return parts[0] if len(parts) == 1 else {"type": "Sequence", name: parts}


def pieces_of(backend: BackendTokenizer, text: str) -> list[str]:
    """What normaliser and pre-tokenizer hand to the model, piece by piece; added tokens are not looked for.

    Args:
        backend: a tokenizer.
        text: to take apart.
    """
    if backend.normalizer is not None:
        text = backend.normalizer.normalize_str(text)
    if backend.pre_tokenizer is None:
        return [text]
    return [piece for piece, _ in backend.pre_tokenizer.pre_tokenize_str(text)]


def write_tokenizer(
    tokenizer: PreTrainedTokenizerBase, state: State, folder: Path, ids: dict[str, int]
) -> PreTrainedTokenizerBase:
    """Write a tokenizer with another state, such that AutoTokenizer takes the state as it is.

    Args:
        tokenizer: gives the settings that are not in the state: special tokens, chat template, greatest length.
        state: of the tokenizer to write.
        folder: where to.
        ids: that its tokens are to have.

    Returns:
        The tokenizer as it loads from there.

    Raises:
        InputError: what loads is not what was written.
    """
    tokenizer.save_pretrained(folder)
    for name in sorted({*tokenizer.vocab_files_names.values(), "added_tokens.json"} - {*_KEPT_FILES}):
        (folder / name).unlink(missing_ok=True)  # the old vocabulary
    (folder / "tokenizer.json").write_text(json.dumps(state, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    config = read_json(folder / "tokenizer_config.json")
    config["tokenizer_class"] = _LITERAL_CLASS
    write_json(folder / "tokenizer_config.json", config)
    loaded = load_tokenizer(folder, "--output")
    wanted = json.loads(backend_of(state).to_str())
    if loaded.get_vocab() != ids:
        raise InputError(
            f"{type(tokenizer).__name__}: expected tokens whose ids survive writing and loading, found "
            f"{_first_difference(ids, loaded.get_vocab())}; holes before its added tokens can do that"
        )
    for name in ("normalizer", "pre_tokenizer", "post_processor", "decoder"):
        if read_state(loaded)[name] != wanted[name]:
            raise InputError(
                f"{type(tokenizer).__name__}: expected its {name} to load as it was written, found another"
            )
    return loaded


def _first_difference(wanted: dict[str, int], found: dict[str, int]) -> str:
    def differences() -> Iterator[str]:
        for content in sorted({*wanted, *found}):
            if wanted.get(content) != found.get(content):
                yield f"{content!r} was {wanted.get(content)}, became {found.get(content)}"

    return next(differences())
