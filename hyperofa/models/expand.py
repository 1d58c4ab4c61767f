r"""New words for a tokenizer: each becomes one token wherever it stands as a whole word; all else stays as it was.

How depends on the family, for a word must decode with the space before it, and must not be cut out of longer words:

WordPiece      an added token that matches whole words only; spaces are no part of WordPiece tokens.
byte-level     two entries of the vocabulary, `Ġword` and `word` (start of the text, after a bracket), without merges:
               BPE gets `ignore_merges`, by which a pre-token that is an entry is that entry. Words that the
               pre-tokenizer would split (Devanagari under GPT-2's pattern, hyphens) are put before its pattern.
SentencePiece  two entries, `▁word` and `word`, and a pre-tokenizer that sets whole words apart. BPE: `ignore_merges`.
               Unigram: the score is a hair above that of the pieces that spelled the word, so that other words keep
               their tokens, except that within longer words the new token may stand for exactly these pieces.

Added tokens would be simpler for all, but lose the space before them (SentencePiece, byte-level), put one after them
(XLM-R), or break in decoding (byte-level, letters beyond ASCII).

A whole word is one that no letter, mark, digit or underscore touches: in scripts written without spaces, hardly any.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer as BackendTokenizer
from transformers import PreTrainedTokenizerBase

from hyperofa.errors import InputError
from hyperofa.models.source import ModelLike, TokenizerLike, tokenizer_of
from hyperofa.runtime.files import FilePath, FilePaths
from hyperofa.runtime.folders import new_folder
from hyperofa.runtime.idle import Use, check_read
from hyperofa.runtime.ranges import Count, in_range
from hyperofa.runtime.text_files import read_lines
from hyperofa.tokens.canonical import Family, bare_backend, canonical_tokens, load_tokenizer, tokenizer_family
from hyperofa.tokens.mining import count_pieces, count_tokens, count_words, mine, pieces_in_text, words_of
from hyperofa.tokens.tokenizer_json import (
    State,
    backend_of,
    components,
    is_byte,
    model_vocabulary,
    pieces_of,
    read_state,
    sequence,
    write_tokenizer,
)

_GPT2_PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"  # ByteLevel(use_regex)
_HAIR = 1e-6  # per squared letter, so that a long word beats two short ones that make it up
_SHOWN = 10


@dataclass(frozen=True)
class Expansion:
    """An expanded tokenizer on disk.

    Attributes:
        path: its folder.
        words: new words, in the order of their tokens.
        tokens: new vocabulary entries; up to two spellings a word.
        skipped: candidates that the tokenizer has already, or cannot keep whole.
        revived: old tokens that the merges never led to (none in a trained tokenizer), and that can occur from now on.
        sizes: tokens before and after.
        text: tokens of the text before and after, if there was one.
    """

    path: Path
    words: list[str]
    tokens: list[str]
    skipped: list[str]
    revived: list[str]
    sizes: tuple[int, int]
    text: tuple[int, int] | None

    def summary(self) -> str:
        """What `hyperofa expand` prints."""
        before, after = self.sizes
        lines = [
            f"tokenizer {self.path}: {before:,} tokens, {len(self.tokens):,} new ones for {len(self.words):,} words; "
            f"{after:,} in all",
            f"  words: {_shown(self.words)}",
        ]
        if self.skipped:
            lines.append(f"  left out, as it has them or cannot keep them whole: {_shown(self.skipped)}")
        if self.revived:
            lines.append(f"  old tokens that no merge led to, and that can occur now: {_shown(self.revived)}")
        if self.text is not None:
            old, new = self.text
            lines.append(f"  the text: {old:,} tokens before, {new:,} after: {1 - new / max(1, old):.1%} saved")
        return "\n".join(lines)


@in_range()
def expand(
    source_model: ModelLike | TokenizerLike,
    output: FilePath,
    words: FilePath | None = None,
    tokenizer: str | None = None,
    text: FilePaths | None = None,
    count: Count | None = None,
    min_pieces: Count = 3,
    overwrite: bool = False,
) -> Expansion:
    """Add words to a model's tokenizer; give the folder to `hyperofa prepare --target_tokenizer` for their rows.

    The words come from --words, from --tokenizer, or are mined from --text. Tokens that were there keep their ids, and
    `hyperofa export` keeps their rows to the bit.

    Args:
        source_model: folder or hub id of the model or tokenizer; in Python also a tokenizer, or `(model, tokenizer)`.
        output: tokenizer folder to write.
        words: file of words, one a line.
        tokenizer: another tokenizer, whose words the source lacks.
        text: files of text. Words are mined from it if neither --words nor --tokenizer is given; with --tokenizer, its
            words are ranked by what they save here. The saving in tokens is measured on it.
        count: how many words to add, at most; needed for mining.
        min_pieces: mine only words that take at least this many tokens now.
        overwrite: replace a folder that is already there.

    Returns:
        What was written.

    Raises:
        InputError: no words, or words of --words that the tokenizer cannot keep whole.

    Example:
        >>> import hyperofa
        >>> expansion = hyperofa.expand("bert", "more_words", text=["german.txt"], count=2)
        >>> len(expansion.words)
        2
    """
    if words is not None and tokenizer is not None:
        raise InputError("--words and --tokenizer: expected one of the two, found both")
    if words is None and tokenizer is None and (not text or count is None):
        raise InputError("expected --words FILE, --tokenizer T, or --text FILE with --count N; found none of them")
    check_read(expand, locals(), Use(("min_pieces",), words is None and tokenizer is None, "with words to be mined"))
    given = source_model[1] if isinstance(source_model, tuple) else source_model
    source = tokenizer_of(given, "--source_model").load()
    lines = read_lines(text, "--text") if text else []
    if words is not None:
        candidates = list(dict.fromkeys(read_lines([words], "--words")))[:count]
    else:
        candidates = _candidates(source, tokenizer, lines, count, min_pieces)
    inputs = [source_model, words, tokenizer, *(text or [])]
    with new_folder(output, overwrite, kind="tokenizer", inputs=inputs) as folder:
        state, added, unfit = expand_state(source, candidates)
        if words is not None and unfit:
            raise InputError(
                f"--words {words}: expected words that the tokenizer can keep whole, found {_shown(unfit)}, which it "
                "splits at spaces or marks; leave them out"
            )
        if not added:
            raise InputError("expected words that the source tokenizer lacks, found none; give others")
        result = write_tokenizer(source, state, folder, backend_of(state).get_vocab())
        old = source.get_vocab()
        new = sorted(result.get_vocab().items(), key=lambda entry: entry[1])
        measured = (count_tokens(bare_backend(source), lines), count_tokens(bare_backend(result), lines))
        skipped = [word for word in candidates if word not in added]
    tokens = [content for content, _ in new if content not in old]
    return Expansion(
        Path(output), added, tokens, skipped, _revived(source), (len(old), len(new)), measured if lines else None
    )


def _candidates(
    source: PreTrainedTokenizerBase, tokenizer: str | None, lines: Sequence[str], count: int | None, min_pieces: int
) -> list[str]:
    backend, unknown = bare_backend(source), source.unk_token_id
    counts = count_words(lines)
    if tokenizer is not None:
        theirs = words_of(canonical_tokens(load_tokenizer(tokenizer, "--tokenizer")))
        if not lines:
            pieces = count_pieces(backend, theirs, unknown)
            return [word for word, size in zip(theirs, pieces, strict=True) if size > 1][:count]
        counts = type(counts)({word: counts[word] for word in theirs if counts[word]})
    found = mine(backend, counts, unknown, count or len(counts), 2 if tokenizer is not None else min_pieces)
    return [candidate.word for candidate in found]


def expand_state(tokenizer: PreTrainedTokenizerBase, words: Sequence[str]) -> tuple[State, list[str], list[str]]:
    """Add words to a tokenizer's state.

    Args:
        tokenizer: the source's.
        words: candidates, best first.

    Returns:
        The new state; the words that were added; the words that this tokenizer cannot keep whole. A word that is one
        token already is in neither.

    Raises:
        InputError: the tokenizer is of a kind that cannot be expanded.
    """
    state = read_state(tokenizer)
    family = tokenizer_family(state)
    if family == "wordlevel":
        raise InputError("expected a WordPiece, byte-level BPE or SentencePiece tokenizer to expand, found WordLevel")
    old, vocabulary = backend_of(state), tokenizer.get_vocab()
    spellings: dict[str, list[str]] = {}
    names = [_normalised(old, word) for word in words]
    for word, name, ids in zip(words, names, pieces_in_text(old, names), strict=True):
        if name and (len(ids) > 1 or ids == [tokenizer.unk_token_id]):
            spellings.setdefault(name, []).append(word)
    add = _add_whole_words if family == "wordpiece" else _add_entries
    expanded, fit = add(state, family, vocabulary, list(spellings))
    if (whole := _whole(backend_of(expanded), fit, tokenizer.unk_token_id)) != fit:
        # Unigram has some words as tokens that it never chooses.
        expanded, fit = add(state, family, vocabulary, whole)
    new = backend_of(expanded)
    if _whole(new, fit, tokenizer.unk_token_id) != fit or not vocabulary.items() <= new.get_vocab().items():
        raise InputError(
            f"{type(tokenizer).__name__}: expected one token a word and old ids kept, found that it cannot"
        )
    added = [word for name in fit for word in spellings[name]]
    return expanded, added, [word for name in spellings if name not in fit for word in spellings[name]]


def _revived(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Tokens of BPE that its merges do not lead to; `ignore_merges` gives them a way."""
    state = read_state(tokenizer)
    if state["model"]["type"] != "BPE" or state["model"]["ignore_merges"]:
        return []
    model, apart = backend_of(state).model, {token["content"] for token in state["added_tokens"]}
    entries = [entry for entry in state["model"]["vocab"] if entry not in apart and not is_byte(entry)]
    return [entry for entry in entries if [piece.value for piece in model.tokenize(entry)] != [entry]]


def _normalised(backend: BackendTokenizer, word: str) -> str:
    """The word as the tokenizer sees it, without marks of its start; as it is where that is no fixed point."""
    if backend.normalizer is None:
        return word.strip()
    seen = backend.normalizer.normalize_str(word).strip(" ▁")
    again = backend.normalizer.normalize_str(seen).strip(" ▁")
    return seen if again == seen and (" " in word.strip() or " " not in seen) else word.strip()


def _whole(backend: BackendTokenizer, names: Sequence[str], unknown: int | None) -> list[str]:
    """Those that are one known token at the start of a text, and inside it as well."""
    alone = [encoding.ids for encoding in backend.encode_batch_fast(list(names), add_special_tokens=False)]
    found = zip(names, alone, pieces_in_text(backend, names), strict=True)
    return [name for name, *ids in found if all(len(one) == 1 and one[0] != unknown for one in ids)]


def _add_whole_words(
    state: State, family: Family, vocabulary: dict[str, int], names: list[str]
) -> tuple[State, list[str]]:
    """WordPiece: tokens that are looked for after normalisation, and only where no letter or digit touches them."""
    flags = {"single_word": True, "lstrip": False, "rstrip": False, "normalized": True, "special": False}
    first_id = max(vocabulary.values()) + 1

    def with_words(chosen: list[str]) -> State:
        tokens = [{"id": first_id + number, "content": name, **flags} for number, name in enumerate(chosen)]
        return {**state, "added_tokens": [*state["added_tokens"], *tokens]}

    fit = _whole(backend_of(with_words(names)), names, vocabulary.get(state["model"]["unk_token"]))
    return with_words(fit), fit


def _add_entries(state: State, family: Family, vocabulary: dict[str, int], names: list[str]) -> tuple[State, list[str]]:
    """BPE and Unigram: entries of the model, and a pre-tokenizer that keeps whole words in one piece."""
    old = backend_of(state)
    native = {name for name in names if _kept_whole(old, family, name)}

    def isolating(chosen: list[str]) -> State:
        return _isolate(state, family, [name for name in chosen if family != "bytelevel" or name not in native])

    trial = backend_of(isolating(names))
    fit = [name for name in names if _kept_whole(trial, family, name)]
    state = isolating(fit)
    state["model"] = _with_added_tokens(state, vocabulary)
    entries = [entry for entry in _entries(backend_of(state), family, fit) if entry not in vocabulary]
    model, first_id = state["model"], max(vocabulary.values()) + 1
    if model["type"] == "Unigram":
        model["vocab"] = [*model["vocab"], *_scored(old, model, entries)]
    else:
        model["vocab"] = model["vocab"] | {entry: first_id + number for number, entry in enumerate(entries)}
        model["ignore_merges"] = True
    return state, fit


def _kept_whole(backend: BackendTokenizer, family: Family, name: str) -> bool:
    if family == "bytelevel":
        return len(pieces_of(backend, name)) == len(pieces_of(backend, f" {name}")) == 1
    marked = name.replace(" ", "▁")
    return pieces_of(backend, f"( {name}.")[-2:] == [f"▁{marked}", "."] and len(pieces_of(backend, name)) == 1


def _entries(backend: BackendTokenizer, family: Family, names: Sequence[str]) -> list[str]:
    """The spellings of words in the vocabulary: after a space, and elsewhere."""
    if family == "bytelevel":
        found = [pieces_of(backend, text)[0] for name in names for text in (f" {name}", name)]
    else:
        found = [start + name.replace(" ", "▁") for name in names for start in ("▁", "")]
    return list(dict.fromkeys(found))


def _isolate(state: State, family: Family, names: Sequence[str]) -> State:
    """A state whose pre-tokenizer keeps whole words in one piece, where its kind allows it."""
    parts = components(state["pre_tokenizer"])
    if not names:
        return dict(state)
    if family == "sentencepiece":
        pattern = rf"▁?(?<!\w)(?:{_any_of([name.replace(' ', '▁') for name in names])})(?!\w)"
        return {**state, "pre_tokenizer": sequence([*parts, _splitting(pattern)], "pretokenizers")}
    pattern = rf" ?(?<!\w)(?:{_any_of(names)})(?!\w)"
    for place, part in enumerate(parts):
        regex = part["pattern"].get("Regex") if part["type"] == "Split" else None
        if regex is not None and (part["behavior"], part["invert"]) in (("Isolated", False), ("Removed", True)):
            changed = [{**part, "pattern": {"Regex": f"{pattern}|{regex}"}}]
        elif part["type"] == "ByteLevel" and part.get("use_regex", True) and not part["add_prefix_space"]:
            changed = [_splitting(f"{pattern}|{_GPT2_PATTERN}"), {**part, "use_regex": False}]
        else:
            continue
        return {**state, "pre_tokenizer": sequence([*parts[:place], *changed, *parts[place + 1 :]], "pretokenizers")}
    return dict(state)


def _splitting(pattern: str) -> State:
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


def _any_of(words: Sequence[str]) -> str:
    """A pattern that matches the longest of some words, in time that hardly grows with their number: a trie."""
    trie: dict[str, Any] = {}
    for word in words:
        node = trie
        for character in word:
            node = node.setdefault(character, {})
        node[""] = {}

    def pattern(node: dict[str, Any]) -> str:
        branches = [re.escape(character) + pattern(below) for character, below in sorted(node.items()) if character]
        if not branches:
            return ""
        inner = branches[0] if len(branches) == 1 and "" not in node else f"(?:{'|'.join(branches)})"
        return f"{inner}?" if "" in node else inner

    return pattern(trie)


def _with_added_tokens(state: State, vocabulary: dict[str, int]) -> State:
    """The model with entries for the tokens that were added to it, as new entries before them would shift their ids."""
    model, known = dict(state["model"]), model_vocabulary(state)
    contents = {token["content"] for token in state["added_tokens"]} - set(known)
    missing = sorted((vocabulary[content], content) for content in contents)
    if model["type"] != "Unigram":
        model["vocab"] = model["vocab"] | {content: token_id for token_id, content in missing}
        return model
    lowest = min(score for _, score in model["vocab"])
    for place, (token_id, content) in enumerate(missing, len(known)):
        if token_id != place:
            raise InputError(f"expected a tokenizer without holes, found one at id {place}, before {content}")
    model["vocab"] = [*model["vocab"], *([content, lowest] for _, content in missing)]
    return model


def _scored(old: BackendTokenizer, model: State, entries: Sequence[str]) -> list[list[Any]]:
    """Unigram entries, a hair better than the pieces that spelled them."""
    scores = dict(model["vocab"])
    lowest = min(scores.values())
    scores = {content: score for content, score in scores.items() if not is_byte(content)}
    if model["unk_id"] is not None:
        del scores[model["vocab"][model["unk_id"]][0]]
    scored = []
    for entry in entries:
        found = [scores.get(piece.value) for piece in old.model.tokenize(entry)]
        known = [score for score in found if score is not None]
        # Any score beats unknown characters, whose penalty is taken from the lowest.
        scored.append([entry, sum(known) + _HAIR * len(entry) ** 2 if len(known) == len(found) else lowest])
    return scored


def _shown(words: Sequence[str]) -> str:
    more = f" and {len(words) - _SHOWN:,} more" if len(words) > _SHOWN else ""
    return ", ".join(words[:_SHOWN]) + more
