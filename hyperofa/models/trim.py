"""A smaller vocabulary for the text at hand: drop the tokens that it never uses, keep what the others are made of.

What stays, besides the tokens in use: added and special tokens; the alphabet, so that any text can still be tokenised
(bytes where the tokenizer has them, else every single character); of BPE, the tokens through which the merges of a kept
token go; of Unigram, one token of the lowest score, on which the penalty of unknown characters hangs.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer as BackendTokenizer
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hyperofa.errors import InputError
from hyperofa.models.folder import Making, finish, write_model
from hyperofa.models.source import ModelLike, source_of
from hyperofa.models.vocabulary import read_vocabulary, replace_vocabulary
from hyperofa.runtime.calls import written_call
from hyperofa.runtime.files import FilePath, FilePaths
from hyperofa.runtime.folders import new_folder
from hyperofa.runtime.ranges import Count, in_range
from hyperofa.runtime.text_files import read_lines
from hyperofa.tokens.canonical import tokenizer_family
from hyperofa.tokens.tokenizer_json import State, backend_of, model_vocabulary, pieces_of, read_state, write_tokenizer

_STORY = (
    "Tokens that a sample of text never used were dropped; all that is left is the base model's, weight by weight, and "
    "gives the same logits."
)
_BATCH = 10_000  # lines tokenised at a time


@dataclass(frozen=True)
class Trimmed:
    """A trimmed model on disk.

    Attributes:
        path: its folder.
        tokens: rows of the vocabulary before and after.
        used: tokens that the text uses often enough; the others were kept for their sake, or as an alphabet.
        megabytes: of parameters (10⁶ bytes), before and after.
    """

    path: Path
    tokens: tuple[int, int]
    used: int
    megabytes: tuple[float, float]

    def summary(self) -> str:
        """What `hyperofa trim` prints."""
        (before, after), (large, small) = self.tokens, self.megabytes
        return (
            f"{self.path}: {after:,} of {before:,} rows kept, {self.used:,} of them for tokens in use; "
            f"{small:,.1f} of {large:,.1f} MB, {large - small:,.1f} MB saved"
        )


@in_range()
def trim(
    source_model: ModelLike, text: FilePaths, output: FilePath, min_count: Count = 1, overwrite: bool = False
) -> Trimmed:
    """Drop the tokens that a text never uses; logits of the others stay as they are.

    Args:
        source_model: folder or hub id of the model, with its tokenizer; in Python also `(model, tokenizer)`.
        text: files of text in the languages to keep, one sentence a line.
        output: model folder to write.
        min_count: keep tokens that the text uses at least so often; above 1, the text itself will be tokenised
            differently where rarer ones stood.
        overwrite: replace a folder that is already there.

    Returns:
        What was written.

    Raises:
        InputError: no text, or a tokenizer of a kind that cannot be trimmed.

    Example:
        >>> import hyperofa
        >>> print(hyperofa.trim("bert", ["english.txt"], "fewer_tokens").path)
        fewer_tokens
    """
    call = written_call(trim, locals())
    lines, source = read_lines(text, "--text"), source_of(source_model)
    tokenizer = source.load_tokenizer()
    with new_folder(output, overwrite, kind="model", inputs=[source_model, *text]) as folder:
        model = source.load()
        vocabulary, large = read_vocabulary(model), _megabytes(model)
        if len(vocabulary.input_rows) <= max(tokenizer.get_vocab().values()):
            raise InputError(
                f"--source_model {source.name}: expected a row for each of its {len(tokenizer):,} tokens, found "
                f"{len(vocabulary.input_rows):,}"
            )
        state, kept, used = trim_state(tokenizer, lines, min_count)
        rows = vocabulary.take(kept)
        replace_vocabulary(
            model,
            rows.input_rows,
            output_rows=None if rows.tied else rows.output_rows,
            bias=rows.bias,
            special_ids={},
            moved={int(old): new for new, old in enumerate(kept)},
        )
        contents = {token_id: content for content, token_id in tokenizer.get_vocab().items()}
        write_tokenizer(tokenizer, state, folder, {contents[old]: new for new, old in enumerate(kept.tolist())})
        making = Making("trim", _STORY, source.name, call, source=source.name if source.in_memory is None else None)
        counts = {"copied": len(kept)}
        rows_of = ([new, contents[old], "copied", old] for new, old in enumerate(kept.tolist()))
        write_model(model, folder, making, ["id", "token", "origin", "source_id"], rows_of, counts)
        finish(folder, model, making, counts, source_model=source.name)
    return Trimmed(Path(output), (len(vocabulary.input_rows), len(kept)), used, (large, _megabytes(model)))


def _megabytes(model: PreTrainedModel) -> float:
    return sum(parameter.numel() * parameter.element_size() for parameter in model.parameters()) / 1e6


def trim_state(
    tokenizer: PreTrainedTokenizerBase, lines: Sequence[str], min_count: int = 1
) -> tuple[State, np.ndarray, int]:
    """Drop the tokens that a text never uses.

    Args:
        tokenizer: of the source.
        lines: the text.
        min_count: uses that save a token.

    Returns:
        The new state; `(T,)` int64 ascending, the old id of each token; how many of them the text uses.

    Raises:
        InputError: the tokenizer is of a kind that cannot be trimmed.
    """
    state = read_state(tokenizer)
    model, backend = state["model"], backend_of(state)
    tokenizer_family(state)  # an unknown kind is an error
    if model["type"] == "BPE" and (model["continuing_subword_prefix"] or model["end_of_word_suffix"]):
        raise InputError(
            "expected BPE without marks inside its merges, found one with </w> or a prefix; it stays whole"
        )
    counts = _count(backend, lines, max(tokenizer.get_vocab().values()) + 1)
    used = set(np.flatnonzero(counts >= min_count).tolist())
    always = used | {tokenizer.get_vocab()[token] for token in tokenizer.all_special_tokens}
    always |= {tokenizer.get_vocab()[token["content"]] for token in state["added_tokens"]} | _alphabet(state)
    vocabulary = model_vocabulary(state)
    merging = _Merging(model, vocabulary) if model["type"] == "BPE" else None
    kept = always if merging is None else always | merging.parts(_contents(vocabulary, always))
    trimmed = _only(state, kept, tokenizer)
    # Within a word, a token may have come about in another way than alone ("aaa"): keep that way too.
    if min_count == 1 and merging is not None and (apart := _differing(backend, backend_of(trimmed), lines)):
        kept = kept | merging.parts(piece for line in apart for piece in pieces_of(backend, line))
        trimmed = _only(state, kept, tokenizer)
    if min_count == 1 and (apart := _differing(backend, backend_of(trimmed), lines)):
        raise InputError(f"expected the text to be tokenised as before, found another way for: {apart[0][:80]}")
    return trimmed, np.array(sorted(kept), np.int64), len(used)


def _count(backend: BackendTokenizer, lines: Sequence[str], size: int) -> np.ndarray:
    """`(size,)` int64, how often a text uses each token."""
    counts = np.zeros(size, np.int64)
    for start in range(0, len(lines), _BATCH):
        encodings = backend.encode_batch_fast(list(lines[start : start + _BATCH]), add_special_tokens=False)
        ids = [np.array(encoding.ids, np.int64) for encoding in encodings]
        counts += np.bincount(np.concatenate(ids), minlength=size)
    return counts


def _contents(vocabulary: dict[str, int], ids: set[int]) -> list[str]:
    return [content for content, token_id in vocabulary.items() if token_id in ids]


def _alphabet(state: State) -> set[int]:
    """Ids without which some text could not be tokenised, or only as unknown."""
    model, vocabulary = state["model"], model_vocabulary(state)
    if model.get("byte_fallback"):
        kept = {f"<0x{byte:02X}>" for byte in range(256)} | {"▁"}
    else:
        prefix = model.get("continuing_subword_prefix") or ""
        kept = {content for content in vocabulary if len(content.removeprefix(prefix)) == 1}
    ids = {vocabulary[content] for content in kept if content in vocabulary}
    if model["type"] == "Unigram":
        ids.add(min(range(len(model["vocab"])), key=lambda token_id: model["vocab"][token_id][1]))
        ids.update([] if model["unk_id"] is None else [model["unk_id"]])
    elif model.get("unk_token") in vocabulary:
        ids.add(vocabulary[model["unk_token"]])
    return ids


class _Merging:
    """Byte-pair encoding as the Rust model does it, but telling which tokens it went through.

    Args:
        model: the state of a BPE model.
        vocabulary: its ids.
    """

    def __init__(self, model: State, vocabulary: dict[str, int]) -> None:
        pairs = [tuple(merge.split(" ", 1) if isinstance(merge, str) else merge) for merge in model["merges"]]
        self._ranks = {pair: rank for rank, pair in reversed(list(enumerate(pairs)))}
        self._vocabulary = vocabulary

    def parts(self, strings: Iterable[str]) -> set[int]:
        """Ids of all tokens that are met on the way from characters to the tokens of some strings."""
        met: set[str] = set()
        for string in sorted(set(strings)):
            symbols = list(string)
            met.update(symbols)
            while len(symbols) > 1:
                pairs = enumerate(pairwise(symbols))
                ranked = [(self._ranks[pair], place) for place, pair in pairs if pair in self._ranks]
                if not ranked:
                    break
                _, place = min(ranked)
                symbols[place : place + 2] = [symbols[place] + symbols[place + 1]]
                met.add(symbols[place])
        return {self._vocabulary[symbol] for symbol in met if symbol in self._vocabulary}


def _only(state: State, kept: set[int], tokenizer: PreTrainedTokenizerBase) -> State:
    """The state with the kept tokens alone, numbered anew in their old order."""
    new = {old: number for number, old in enumerate(sorted(kept))}
    ids = tokenizer.get_vocab()
    model = dict(state["model"])
    if model["type"] == "Unigram":
        model["vocab"] = [entry for token_id, entry in enumerate(model["vocab"]) if token_id in new]
        model["unk_id"] = None if model["unk_id"] is None else new[model["unk_id"]]
    else:
        model["vocab"] = {content: new[old] for content, old in model["vocab"].items() if old in new}
    if model["type"] == "BPE":
        merges = [merge.split(" ", 1) if isinstance(merge, str) else merge for merge in model["merges"]]
        known = model["vocab"]
        model["merges"] = [[a, b] for a, b in merges if a in known and b in known and a + b in known]
    trimmed = {
        **state,
        "model": model,
        "added_tokens": [{**token, "id": new[ids[token["content"]]]} for token in state["added_tokens"]],
        "post_processor": _renumbered(state["post_processor"], new),
    }
    if state["padding"] is not None:
        trimmed["padding"] = {**state["padding"], "pad_id": new[state["padding"]["pad_id"]]}
    return trimmed


def _renumbered(part: Any, new: dict[int, int]) -> Any:
    """A post-processor with new ids: `ids` of templates, `[content, id]` of BERT's and RoBERTa's."""
    if isinstance(part, list):
        return [_renumbered(inner, new) for inner in part]
    if not isinstance(part, dict):
        return part
    changed = {name: _renumbered(inner, new) for name, inner in part.items()}
    if "ids" in part:
        changed["ids"] = [new[old] for old in part["ids"]]
    for name in ("sep", "cls"):
        if isinstance(part.get(name), list):
            changed[name] = [part[name][0], new[part[name][1]]]
    return changed


def _differing(old: BackendTokenizer, new: BackendTokenizer, lines: Sequence[str]) -> list[str]:
    """The lines that two tokenizers do not split alike."""
    found = []
    for start in range(0, len(lines), _BATCH):
        batch = list(lines[start : start + _BATCH])
        pairs = zip(batch, old.encode_batch(batch), new.encode_batch(batch), strict=True)
        found += [line for line, before, after in pairs if before.tokens != after.tokens]
    return found
