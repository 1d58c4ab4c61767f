"""Parts of speech and named entities: fine-tuned on the source language, read in the others without an example.

The tasks of the OFA and HYPEROFA papers, with their settings (10 epochs, rate 2e-5, batches of 32, 256 tokens, one
linear layer on the last hidden states, a word's label at its first token). Data: `pos/LNG/test.conllu` and
`ner/LNG/test.bio` of each language, and `train.…` of the source language beside its own.
"""

from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from tqdm import tqdm

from hyperofa.errors import InputError
from hyperofa.evaluation.scores import SOURCE_LANGUAGE, Metric
from hyperofa.evaluation.tagged_text import TaggedSentence, entities, read_bio, read_conllu
from hyperofa.evaluation.task import Finding, LoadedModel, Request, Task
from hyperofa.models.objectives import longest
from hyperofa.runtime.devices import best_device
from hyperofa.runtime.processes import bar_hidden

METRICS = {"f1": Metric("F1", main=True)}
_FOLDERS: dict[str, tuple[str, str, Callable[[Path], list[TaggedSentence]]]] = {
    "POS": ("pos", "conllu", read_conllu),
    "NER": ("ner", "bio", read_bio),
}
_EPOCHS, _RATE, _BATCH, _TOKENS, _SEED = 10, 2e-5, 32, 256, 1


@dataclass(frozen=True)
class TaggedText:
    """Test sentences of one language, and the training sentences of the source language."""

    task: str
    language: str
    test: Path
    train: Path


class Tagger(nn.Module):
    """A copy of a model's body and a linear layer that labels its last hidden states.

    Args:
        model: with its tokenizer; of an encoder-decoder the encoder is used.
        labels: what words can be.
    """

    def __init__(self, model: LoadedModel, labels: Sequence[str]) -> None:
        super().__init__()
        network, self._tokenizer = model
        self.labels = list(labels)
        self._length = longest(network, self._tokenizer, _TOKENS)
        body = network.get_encoder() if network.config.is_encoder_decoder else network.base_model
        self.body = deepcopy(body).float().requires_grad_(True)
        self.head = nn.Linear(network.config.get_text_config().hidden_size, len(self.labels))

    def forward(self, sentences: Sequence[TaggedSentence]) -> tuple[Tensor, list[list[int]]]:
        """Scores of every word that is read.

        Args:
            sentences: B of them.

        Returns:
            `(W, L)` scores of the labels, sentence after sentence; and of each sentence the words that they are of.
            What lies behind 256 tokens, or has none of its own, is not read.
        """
        texts = [each.text for each in sentences]
        batch = self._tokenizer(
            texts, padding=True, truncation=True, max_length=self._length, return_tensors="pt",
            return_offsets_mapping=True,
        )  # fmt: skip
        firsts = [_first_tokens(each, spans) for each, spans in zip(sentences, batch["offset_mapping"], strict=True)]
        device = self.head.weight.device
        ids, mask = batch["input_ids"].to(device), batch["attention_mask"].to(device)
        states = self.body(input_ids=ids, attention_mask=mask).last_hidden_state
        rows = [number for number, found in enumerate(firsts) for _ in found]
        columns = [token for found in firsts for _, token in found]
        return self.head(states[rows, columns]), [[word for word, _ in found] for found in firsts]


def _first_tokens(sentence: TaggedSentence, spans: Tensor) -> list[tuple[int, int]]:
    """Each word that has a token, and its first one; tokens may begin with the space before.

    Args:
        sentence: the words.
        spans: `(L, 2)` characters of each token; of special ones none.
    """
    tokens = [(token, int(start), int(end)) for token, (start, end) in enumerate(spans) if end > start]
    found, place = [], 0
    for word, (start, end) in enumerate(zip(sentence.starts, sentence.ends, strict=True)):
        while place < len(tokens) and tokens[place][2] <= start:
            place += 1
        if place < len(tokens) and tokens[place][1] < end:
            found.append((word, tokens[place][0]))
    return found


def train_tagger(model: LoadedModel, sentences: Sequence[TaggedSentence], progress: str) -> Tagger:
    """Fine-tune a copy of a model.

    Args:
        model: with its tokenizer; stays as it is.
        sentences: to learn from.
        progress: name of the progress bar.
    """
    places = {
        label: place for place, label in enumerate(sorted({label for each in sentences for label in each.labels}))
    }
    order = np.random.default_rng(_SEED)
    with torch.random.fork_rng():
        torch.manual_seed(_SEED)
        tagger = Tagger(model, list(places)).to(best_device()).train()
        optimizer = torch.optim.AdamW(tagger.parameters(), lr=_RATE)
        steps = _EPOCHS * -(-len(sentences) // _BATCH)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / steps)
        with tqdm(total=steps, desc=progress, unit=" steps", leave=False, disable=bar_hidden(False)) as bar:
            for _ in range(_EPOCHS):
                for batch in _batches(sentences, order.permutation(len(sentences))):
                    scores, words = tagger(batch)
                    labels = [places[each.labels[word]] for each, of in zip(batch, words, strict=True) for word in of]
                    loss = cross_entropy(scores.float(), torch.tensor(labels, device=scores.device))
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()
                    schedule.step()
                    bar.update()
    return tagger.eval()


def label_words(tagger: Tagger, sentences: Sequence[TaggedSentence]) -> list[tuple[list[str], list[str]]]:
    """Of each sentence the labels that are right and those that are said, of the words that are read.

    Args:
        tagger: trained.
        sentences: with the right labels.
    """
    found = []
    with torch.inference_mode():
        for batch in _batches(sentences, np.arange(len(sentences))):
            scores, words = tagger(batch)
            said = iter(scores.argmax(1).tolist())
            for each, of in zip(batch, words, strict=True):
                found.append(([each.labels[word] for word in of], [tagger.labels[next(said)] for _ in of]))
    return found


def f1(found: Sequence[tuple[Sequence[str], Sequence[str]]], task: str) -> float:
    """Percent: of entities as wholes (NER, as CoNLL counts), or of words (POS), where it is the accuracy.

    Args:
        found: right and said labels of each sentence.
        task: `NER` or `POS`.
    """
    if task == "POS":
        hits = [right == said for pair in found for right, said in zip(*pair, strict=True)]
        return 100 * sum(hits) / max(1, len(hits))
    pairs = [(entities(right), entities(said)) for right, said in found]
    total = sum(len(right) + len(said) for right, said in pairs)
    return 200 * sum(len(right & said) for right, said in pairs) / max(1, total)


def _batches(sentences: Sequence[TaggedSentence], order: np.ndarray) -> Iterator[list[TaggedSentence]]:
    for start in range(0, len(order), _BATCH):
        yield [sentences[number] for number in order[start : start + _BATCH]]


def _read(request: Request) -> list[TaggedText]:
    found: list[TaggedText] = []
    if request.data is None:
        return found
    for task, (folder, suffix, _) in _FOLDERS.items():
        tests = sorted((request.data / folder).glob(f"*/test.{suffix}"))
        train = request.data / folder / SOURCE_LANGUAGE / f"train.{suffix}"
        if tests and not train.is_file():
            raise InputError(f"--data {request.data}: expected {train} to learn {task} from, found none")
        found += [TaggedText(task, test.parent.name, test, train) for test in tests]
    return found


def _labelled(path: Path, task: str) -> list[TaggedSentence]:
    """The sentences of a file, if there is anything in them to learn or to find."""
    sentences = _FOLDERS[task][2](path)
    if not any(label != "O" for each in sentences for label in each.labels):
        raise InputError(f"{path}: expected sentences with labels for {task}, found none")
    return sentences


def _score(texts: Sequence[TaggedText], target: LoadedModel, source: LoadedModel, request: Request) -> Finding:
    numbers: dict[str, dict[str, dict[str, float]]] = {}
    for task in _FOLDERS:
        chosen = [each for each in texts if each.task == task]
        if not chosen:
            continue
        train, *tests = (_labelled(path, task) for path in (chosen[0].train, *(each.test for each in chosen)))
        tagger = train_tagger(target, train, f"learning {task}")
        found = {
            each.language: label_words(tagger, sentences[: request.sentences])
            for each, sentences in zip(chosen, tests, strict=True)
        }
        numbers[task] = {"f1": {language: f1(labels, task) for language, labels in found.items()}}
    return Finding(numbers)


TASK = Task("tagging", METRICS, "data", "pos/LNG/test.conllu or ner/LNG/test.bio", _read, _score)
