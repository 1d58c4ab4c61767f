"""The model card of an exported folder: what it is, where its rows came from, how to load it and go on."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from huggingface_hub import EvalResult, ModelCardData
from transformers import PreTrainedModel
from transformers.models.auto import modeling_auto
from yaml import YAMLError

from hyperofa.models.factorised import is_factorised
from hyperofa.runtime.calls import Call
from hyperofa.runtime.hub import find_file
from hyperofa.runtime.records import misfit
from hyperofa.runtime.yaml_text import read_yaml

_TASKS = (  # BART counts as a masked model as well
    ("AutoModelForSeq2SeqLM", "text2text-generation", modeling_auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES),
    ("AutoModelForMaskedLM", "fill-mask", modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES),
    ("AutoModelForCausalLM", "text-generation", modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES),
    (
        "AutoModelForImageTextToText",
        "image-text-to-text",
        modeling_auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
    ),
    ("AutoModelForPreTraining", None, modeling_auto.MODEL_FOR_PRETRAINING_MAPPING_NAMES),
    (
        "AutoModelForSequenceClassification",
        "text-classification",
        modeling_auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
    ),
    ("AutoModel", None, modeling_auto.MODEL_MAPPING_NAMES),
)


_FRONT = re.compile(r"\s*---[\r\n]+(.*?)[\r\n]---[ \t]*(?:[\r\n]|$)", re.DOTALL)
_OPEN = {
    "base_model": "the hub id of {name}",
    "language": "codes of the languages that this model is for",
    "license": "the licence of the base model binds this one",
}
_SENTENCES = """Its modules of sentence-transformers came along (`pip install sentence-transformers`):

```python
from sentence_transformers import SentenceTransformer

sentences = SentenceTransformer("{folder}"{trust})
```

"""


@dataclass(frozen=True)
class CardFields:
    """What the hub is told of a model, where you know better than the card of its base model and the vectors.

    Attributes:
        base_model: hub id of the model that it was made from.
        language: codes of its languages.
        license: its licence, as the hub writes it: mit, apache-2.0, …
        datasets: hub ids of what it was made from.
    """

    base_model: str | None = None
    language: list[str] | None = None
    license: str | None = None
    datasets: list[str] | None = None


def base_card(source: str | None) -> dict[str, Any]:
    """What the card of a model tells the hub.

    Args:
        source: folder or hub id; `None` for a model in memory.

    Returns:
        What its front matter says in words and lists of words; nothing if there is none.
    """
    path = None if source is None else find_file(source, "README.md")
    try:
        block = None if path is None else _FRONT.match(Path(path).read_text(encoding="utf-8"))
        found = None if block is None else read_yaml(block[1])
    except (OSError, ValueError, YAMLError):  # somebody else's card, and no need of ours
        return {}
    plain = found if isinstance(found, dict) else {}
    return {key: value for key, value in plain.items() if misfit(value, str | list[str]) is None}


def auto_class(model: PreTrainedModel) -> tuple[str, str | None]:
    """The Auto class that loads a model with the head it has, and the hub's name of its task."""
    name, kind = type(model).__name__.removeprefix("Factorised"), model.config.model_type.removeprefix("factorised-")
    for loader, task, names in _TASKS:
        found = names.get(kind, ())
        if name in (found if isinstance(found, (tuple, list)) else (found,)):
            return loader, task
    return name, None


def model_card(
    model: PreTrainedModel,
    *,
    base_model: str,
    method: str,
    story: str,
    counts: dict[str, int],
    call: Call,
    citation: str | None = None,
    scores: dict[str, Any] | None = None,
    results: Sequence[EvalResult] = (),
    base: dict[str, Any] | None = None,
    languages: Sequence[str] = (),
    fields: CardFields | None = None,
    embeds_sentences: bool = False,
    folder: str = "path/to/this/folder",
) -> str:
    """The text of README.md; what nobody knows yet is left to fill in.

    Args:
        model: as exported.
        base_model: hub id or folder of the model that it was made from.
        method: how new rows came to be, as a tag.
        story: the same in a sentence or two.
        counts: rows by origin.
        call: that made it.
        citation: BibTeX.
        scores: results of an evaluation, nested at will.
        results: the same for the hub's `model-index`, if they are of `hyperofa evaluate`.
        base: front matter of the base model's card: its licence binds this model.
        languages: codes of those that the vocabulary is for.
        fields: what comes before all this.
        embeds_sentences: whether it has the modules of sentence-transformers.
        folder: hub id or path that it will be loaded from.
    """
    fields, base = fields or CardFields(), base or {}
    loader, task = auto_class(model)
    trust = ", trust_remote_code=True" if is_factorised(model) else ""
    base_model = fields.base_model or base_model
    local = base_model.count("/") > 1 or base_model.startswith((".", "~")) or Path(base_model).exists()
    name = Path(base_model).name if local else base_model
    total = max(1, sum(counts.values()))
    of_base = {} if fields.license else base
    front = ModelCardData(
        base_model=None if local else base_model,
        language=fields.language or list(languages) or base.get("language"),
        license=fields.license or base.get("license"),
        license_name=of_base.get("license_name"),
        license_link=of_base.get("license_link"),
        datasets=fields.datasets,
        library_name="sentence-transformers" if embeds_sentences else "transformers",
        pipeline_tag="sentence-similarity" if embeds_sentences else task,
        tags=["hyperofa", "vocabulary", method, *(["sentence-transformers"] if embeds_sentences else [])],
        model_name=f"{name} with another vocabulary" if results else None,
        eval_results=list(results) or None,
    )
    lines = [
        *_front_matter(front, name),
        f"# {name} with another vocabulary",
        "",
        f"This is `{name}` ({type(model).__name__}) with a vocabulary of {sum(counts.values()):,} tokens. " + story,
        "",
        "| origin | rows | share |",
        "|---|---:|---:|",
        *(f"| {origin} | {count:,} | {count / total:.1%} |" for origin, count in counts.items() if count),
        "",
        "`provenance.tsv` has the origin of each row. `hyperofa verify` compares the folder with `manifest.json`, file "
        "by file and row by row.",
        "",
        "## Scores",
        "",
        *(_table(scores) if scores else ["Not measured."]),
        "",
        *_loading(loader, folder, trust),
        *(_SENTENCES.format(folder=folder, trust=trust).splitlines() if embeds_sentences else []),
        "## How to go on",
        "",
        "The rows are a start: train the model on text of its new languages before use.",
        "",
        "```sh",
        f"hyperofa pretrain --config pretrain --model {folder}",
        "```",
        "",
        "Any trainer of transformers will do, as it is a plain model."
        if not trust
        else "Its embeddings are factorised, E = F P: `modeling_factorised.py` has the code; any trainer will do.",
        "",
        *_making(call),
    ]
    if citation is not None:
        lines += ["", "## Citation", "", "```bibtex", citation, "```"]
    return "\n".join(lines) + "\n"


def trained_card(
    model: PreTrainedModel,
    *,
    name: str,
    base: dict[str, Any],
    lesson: Literal["pretraining", "distillation"],
    steps: int,
    new_steps: int,
    measure: str,
    values: dict[str, tuple[float, float]],
    call: Call,
    embeds_sentences: bool = False,
    folder: str = "path/to/this/folder",
) -> str:
    """The text of README.md for a model that was trained on.

    Args:
        model: as written.
        name: of the model that it was before.
        base: front matter of the card of that model: what it tells the hub holds for this one, but for its scores.
        lesson: what it was trained by.
        steps: of training, all together.
        new_steps: of these, with all but the new rows frozen.
        measure: what was measured on what is held out.
        values: of that before and after, by language.
        call: that made it.
        embeds_sentences: whether it has the modules of sentence-transformers.
        folder: hub id or path that it will be loaded from.
    """
    loader, task = auto_class(model)
    kept = ("base_model", "language", "license", "license_name", "license_link", "datasets")
    tag = "continual-pretraining" if lesson == "pretraining" else "knowledge-distillation"
    tags = dict.fromkeys([*base.get("tags", ["hyperofa"]), tag])
    front = ModelCardData(
        **{key: base.get(key) for key in kept},  # type: ignore[arg-type]
        library_name="sentence-transformers" if embeds_sentences else "transformers",
        pipeline_tag="sentence-similarity" if embeds_sentences else task,
        tags=[tag for tag in tags if embeds_sentences or tag != "sentence-transformers"],
    )
    shown, trust = Path(name).name, ", trust_remote_code=True" if is_factorised(model) else ""
    phase = f", the first {new_steps:,} of them of its new rows alone" if new_steps else ""
    lines = [
        *_front_matter(front, shown),
        f"# {shown}, {'pretrained on' if lesson == 'pretraining' else 'distilled'}",
        "",
        f"This is `{shown}` ({type(model).__name__}) after {steps:,} more steps of {lesson}{phase}.",
        "",
        f"| held-out text | {measure} before | after |",
        "|---|---:|---:|",
        *(f"| {text or 'all'} | {before:.3f} | {after:.3f} |" for text, (before, after) in values.items()),
        "",
        f"`curve.csv` has them on the way, `{lesson}.json` the settings.",
        "",
        *_loading(loader, folder, trust),
        *(_SENTENCES.format(folder=folder, trust=trust).splitlines() if embeds_sentences else []),
        *_making(call),
    ]
    return "\n".join(lines) + "\n"


def _front_matter(front: ModelCardData, name: str) -> list[str]:
    """What the hub is told, with a line to fill in for each thing that nobody knows yet."""
    told = front.to_dict()
    gaps = [f"{key}:  # fill in: {what.format(name=name)}" for key, what in _OPEN.items() if not told.get(key)]
    return ["---", front.to_yaml(), *gaps, "---", ""]


def _loading(loader: str, folder: str, trust: str) -> list[str]:
    return [
        "## How to load it",
        "",
        "```python",
        f"from transformers import {', '.join(sorted(['AutoTokenizer', loader]))}",
        "",
        f'tokenizer = AutoTokenizer.from_pretrained("{folder}")',
        f'model = {loader}.from_pretrained("{folder}"{trust})',
        "```",
        "",
    ]


def _making(call: Call) -> list[str]:
    return ["## How it was made", "", f"```{call.language}", call.text, "```"]


def _table(scores: dict[str, Any]) -> list[str]:
    rows = [f"| {name} | {value} |" for name, value in _leaves(scores)]
    return ["| score | value |", "|---|---:|", *rows]


def _leaves(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Numbers and words of nested results, under names joined by dots; lists (curves, histograms) are left out."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _leaves(inner, f"{name}.{key}" if name else str(key))
    elif isinstance(value, float):
        yield name, f"{value:.4g}"
    elif isinstance(value, (str, int)):
        yield name, str(value)
