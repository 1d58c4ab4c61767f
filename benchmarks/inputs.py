"""Made-up but realistic inputs of the suite: words, tokenizers trained on them, word vectors, a source model, a bundle.

A language is a script, an inventory of syllables (shared by the four languages of a family), and words of one to four
of them in Zipf's frequencies. The n-th words of all languages mean the same: their vectors are one concept and noise.
Given a folder of verses (`LNG.tsv.gz`: id, tab, text), the first languages are real. Tokenizers are Unigram ones, as
XLM-R's: the target's is trained on all languages, the source's on every second one. Embeddings have a falling spectrum.
"""

import gzip
import json
import shutil
import string
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np

SPECIALS = {"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>", "mask_token": "<mask>"}
VEC_WORDS = 100_000  # the text file holds at most so many: 140 MB
BLOCK = 16_384


@dataclass(frozen=True)
class Size:
    """How much there is of everything: V words d wide in so many languages, S and T tokens, E and K columns.

    A made-up language has `lexicon` words: the vectors describe the more frequent ones, tokenizers are trained on more.
    `hidden` is the width of the plain BiLSTM.
    """

    name: str
    words: int
    languages: int
    lexicon: int
    source_tokens: int
    target_tokens: int
    width: int = 768
    word_dim: int = 200
    coordinates: int = 100
    dtype: str = "float32"
    hidden: int = 800


SIZES = {
    size.name: size
    for size in (
        Size("tiny", 600, 3, 500, 200, 300, 32, 16, 8, hidden=8),
        Size("small", 10_000, 4, 15_000, 10_000, 10_000),
        Size("medium", 100_000, 40, 15_000, 100_000, 100_000),
        Size("full", 3_600_000, 1_200, 3_000, 250_002, 401_000, dtype="float16"),
    )
}


def halves(size: Size) -> dict[str, Size]:
    """The size with half of its words, half of its tokens, half of its widths."""
    tokens = {"source_tokens": size.source_tokens // 2, "target_tokens": size.target_tokens // 2}
    widths = {name: getattr(size, name) // 2 for name in ("width", "word_dim", "coordinates")}
    halved = {"words": {"words": size.words // 2}, "tokens": tokens, "width": widths}
    return {axis: replace(size, name=f"{size.name}-{axis}", **changes) for axis, changes in halved.items()}


# Words.

_LETTERS = (
    ("bcdfghjklmnprstvwz", "aeiou"),
    ("bcčćdďfghjklłmnňprřsštťvzž", "aáeéěiíoóuúyý"),
    ("бвгджзклмнпрстфхцчшщ", "аеиоуыэюя"),
    ("βγδζθκλμνξπρστφχψ", "αεηιουωάέή"),
    ("بتثجحخدذرزسشصضطظعغفقكلمنه", "اوي"),
    ("कखगघचछजझटठडढणतथदधनपफबभमयरलवशषसह", "ािीुूेैोौ"),
    ("ಕಖಗಘಚಜಟಡಣತದನಪಬಮಯರಲವಶಸಹ", "ಾಿೀುೂೆೇೈೊೋ"),
    ("ბგდვზთკლმნპჟრსტფქღყშჩცძწჭხჯჰ", "აეიოუ"),
    ("กขคงจชดตถทนบปผพมยรลวสห", "ะาิีึืุู"),
)
_SYLLABARIES = ((0xAC00, 0xD7A4, 600), (0x4E00, 0x5C00, 1500), (0x1200, 0x1350, 150))  # Hangul, Han, Ethiopic


@cache
def _lexicon(number: int, count: int) -> list[str]:
    """The `count` most frequent words of a made-up language, most frequent first."""
    rng, family = np.random.default_rng(number), np.random.default_rng((1, number // 4))
    kind = number // 4 % (len(_LETTERS) + len(_SYLLABARIES))
    if kind < len(_LETTERS):
        consonants, vowels = (family.permutation(list(letters)) for letters in _LETTERS[kind])
        open_ones = [c + v for c in consonants[:14] for v in vowels[:6]]
        syllables = open_ones + [s + c for s in family.permutation(open_ones)[:60] for c in consonants[14:16]]
    else:
        first, last, wanted = _SYLLABARIES[kind - len(_LETTERS)]
        syllables = list(family.permutation([chr(c) for c in range(first, last) if chr(c).isalpha()])[:wanted])
    inventory = rng.permutation(np.array(syllables, object))
    endings = ["", "", "", *inventory[rng.integers(len(inventory), size=12)]]
    words: dict[str, None] = {}
    while len(words) < count:
        parts = inventory[rng.choice(len(inventory), (count, 4), p=_zipf(len(inventory)))].tolist()
        lengths, ends = (
            rng.choice([1, 2, 3, 4], count, p=[0.1, 0.4, 0.35, 0.15]),
            rng.integers(len(endings), size=count),
        )
        for row, length, end in zip(parts, lengths.tolist(), ends.tolist(), strict=True):
            words["".join(row[:length]) + endings[end]] = None
    chosen = np.array(list(words)[:count], object)
    rarity = np.char.str_len(chosen.astype(str)) * rng.exponential(size=count)
    return chosen[np.argsort(rarity)].tolist()


def _zipf(count: int) -> np.ndarray:
    weights = 1 / (np.arange(count) + 2.7)
    return weights / weights.sum()


def read_corpus(folder: Path) -> dict[str, list[str]]:
    """Words of the verses of each language, most frequent first."""
    counts: dict[str, Counter[str]] = {}
    for path in sorted(folder.glob("*.tsv.gz")):
        with gzip.open(path, "rt", encoding="utf-8") as file:
            words = (
                word.strip(string.punctuation + "“”‘’«»…—–¿¡") for line in file for word in line.lower().split()[1:]
            )
            counts.setdefault(path.name[:3], Counter()).update(word for word in words if word)
    return {code: [word for word, _ in counter.most_common()] for code, counter in counts.items()}


class World:
    """The languages of a size."""

    def __init__(self, size: Size, corpus: Path | None) -> None:
        """`corpus` is the folder of verses, if there is one."""
        self._size = size
        real = {} if corpus is None else read_corpus(corpus)
        self._real = dict(list(real.items())[: size.languages])
        letters = string.ascii_lowercase
        made_up = (a + b + c for a in "qxz" for b in letters for c in letters)
        self.codes = [*self._real, *made_up][: size.languages]

    def words(self, language: int, count: int) -> list[str]:
        """The `count` most frequent words; fewer where a real language has fewer."""
        return (self._real.get(self.codes[language]) or _lexicon(language, self._size.lexicon))[:count]

    def entries(self) -> list[tuple[str, str, int]]:
        """Words with their languages and ranks: the most frequent words of all languages come first."""
        each = -(-self._size.words // self._size.languages)
        lists = [self.words(language, each) for language in range(self._size.languages)]
        ranked = [
            (words[rank], code, rank)
            for rank in range(each)
            for code, words in zip(self.codes, lists, strict=True)
            if rank < len(words)
        ]
        return ranked[: self._size.words]

    def text(self, tokens: int, step: int) -> Iterator[str]:
        """Lines of every `step`-th language, of three distinct words for each token wanted, repeated by frequency."""
        languages = range(0, self._size.languages, step)
        for language in languages:
            for rank, word in enumerate(self.words(language, 3 * tokens // len(languages))):
                yield " ".join([word] * min(60, -(-600 // (rank + 1))))

    def sentences(self, count: int) -> list[str]:
        """Sentences of twelve words of the first language."""
        words = self.words(0, 2_000)
        drawn = np.random.default_rng(0).choice(len(words), (count, 12), p=_zipf(len(words)))
        return [" ".join(words[number] for number in row) for row in drawn.tolist()]


# Files.


@dataclass(frozen=True)
class Inputs:
    """Where the inputs of one size lie; `make` writes those that are missing, sizes share what they can."""

    root: Path
    size: Size
    corpus: Path | None = None

    @property
    def model(self) -> Path:
        """The source model with its tokenizer."""
        return self.root / f"model-{self.size.languages}x{self.size.source_tokens}x{self.size.width}"

    @property
    def target(self) -> Path:
        """The target tokenizer."""
        return self.root / f"target-{self.size.languages}x{self.size.target_tokens}"

    @property
    def store(self) -> Path:
        """The word vectors as a store; `words.vec` beside it is their first `VEC_WORDS` as text."""
        return self.root / f"words-{self.size.languages}x{self.size.words}x{self.size.word_dim}" / "store"

    @property
    def vec(self) -> Path:
        """See `store`."""
        return self.store.parent / "words.vec"

    @property
    def text(self) -> Path:
        """Sentences of the first language."""
        return self.root / f"text-{self.size.languages}" / "text.txt"

    @property
    def bundle(self) -> Path:
        """What `prepare` made of them."""
        return self.root / f"bundle-{self.size.name}"

    def scratch(self, name: str) -> Path:
        """A place to write to, with nothing there; gone after the measurement."""
        folder = self.root / "scratch" / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.parent.mkdir(parents=True, exist_ok=True)
        return folder

    def as_json(self) -> str:
        """For another process."""
        return json.dumps(
            {"root": str(self.root), "size": asdict(self.size), "corpus": self.corpus and str(self.corpus)}
        )

    @classmethod
    def of_json(cls, text: str) -> "Inputs":
        """What `as_json` wrote."""
        values = json.loads(text)
        return cls(Path(values["root"]), Size(**values["size"]), values["corpus"] and Path(values["corpus"]))

    def make(self) -> list[str]:
        """Write what is missing, but for the bundle; the names of what was written."""
        from hyperofa.runtime.folders import new_folder

        world = World(self.size, self.corpus)
        parts: dict[Path, Callable[[Path, World], None]] = {
            self.target: self._write_target,
            self.model: self._write_model,
            self.store.parent: self._write_vectors,
            self.text.parent: self._write_text,
        }
        missing = {path: write for path, write in parts.items() if not path.exists()}
        for path, write in missing.items():
            with new_folder(path) as folder:
                write(folder, world)
        return [path.name for path in missing]

    def prepare(self) -> None:
        """Make the bundle anew."""
        from hyperofa.bundle.prepare import prepare

        for leftover in (self.bundle, *self.root.glob(f".{self.bundle.name}*")):  # would be taken up again
            shutil.rmtree(leftover, ignore_errors=True)
        prepare(
            source_model=str(self.model),
            target_tokenizer=str(self.target),
            vectors=[str(self.store)],
            coordinate_dim=self.size.coordinates,
            vectors_dtype="float16" if self.size.dtype == "float16" else "float32",
            output=self.bundle,
        )

    def _write_target(self, folder: Path, world: World) -> None:
        _train_tokenizer(world.text(self.size.target_tokens, 1), self.size.target_tokens, folder)

    def _write_model(self, folder: Path, world: World) -> None:
        import torch
        from transformers import XLMRobertaConfig, XLMRobertaForMaskedLM

        rows, width = self.size.source_tokens, self.size.width
        _train_tokenizer(world.text(rows, 2), rows, folder)
        torch.manual_seed(0)
        config = XLMRobertaConfig(
            vocab_size=rows,
            hidden_size=width,
            num_hidden_layers=2,
            num_attention_heads=max(1, width // 64),
            intermediate_size=4 * width,
            max_position_embeddings=514,
            pad_token_id=1,
            bos_token_id=0,
            eos_token_id=2,
        )
        model = XLMRobertaForMaskedLM(config)
        spectrum = 0.3 * torch.arange(1, width + 1) ** -0.5
        turn = torch.linalg.qr(torch.randn(width, width))[0]
        with torch.no_grad():
            model.get_input_embeddings().weight.copy_((torch.randn(rows, width) * spectrum) @ turn)
        model.save_pretrained(folder)

    def _write_vectors(self, folder: Path, world: World) -> None:
        from hyperofa.vectors.store import StoreWriter, forget_progress

        entries, dim = world.entries(), self.size.word_dim
        concepts = np.random.default_rng(0).standard_normal((entries[-1][2] + 1, dim), np.float32)
        offsets = {code: 0.5 * np.random.default_rng((2, n)).standard_normal(dim) for n, code in enumerate(world.codes)}
        number = np.array([f"{value:.5g}" for value in np.arange(2**16, dtype=np.uint16).view(np.float16)], object)
        store = folder / self.store.name
        store.mkdir()
        with (
            (folder / self.vec.name).open("w", encoding="utf-8") as text,
            StoreWriter(store, dim, np.dtype(self.size.dtype)) as writer,
        ):
            text.write(f"{min(VEC_WORDS, len(entries))} {dim}\n")
            for start in range(0, len(entries), BLOCK):
                block = entries[start : start + BLOCK]
                noise = np.random.default_rng((3, start)).standard_normal((len(block), dim), np.float32)
                shift = np.array([offsets[code] for _, code, _ in block], np.float32)
                vectors = (concepts[[rank for *_, rank in block]] + shift + noise).astype(np.float16)
                writer.append([(word, code, 3) for word, code, _ in block], vectors.astype(self.size.dtype))
                for (word, code, _), row in list(zip(block, vectors, strict=True))[: max(0, VEC_WORDS - start)]:
                    text.write(f"{code}:{word} {' '.join(number[row.view(np.uint16)])}\n")
        writer.finish([{"path": "made up", "format": "store", "language": "", "words": len(entries)}])
        forget_progress(store)

    def _write_text(self, folder: Path, world: World) -> None:
        lines = "\n".join(world.sentences(400))
        (folder / self.text.name).write_text(f"{lines}\n", encoding="utf-8")


def _train_tokenizer(lines: Iterator[str], tokens: int, folder: Path) -> None:
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=tokens, special_tokens=list(SPECIALS.values()), unk_token="<unk>", show_progress=False
    )
    tokenizer.train_from_iterator(lines, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    roles = {**SPECIALS, "cls_token": "<s>", "sep_token": "</s>"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **roles).save_pretrained(folder)
