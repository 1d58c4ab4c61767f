"""The model card of an exported folder: what it is, where its rows came from, how to load it and go on."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel
from transformers.models.auto import modeling_auto

from hyperofa.models.factorised import is_factorised
from hyperofa.runtime.calls import Call

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
) -> str:
    """The text of README.md; the language and the licence are left to fill in.

    Args:
        model: as exported.
        base_model: hub id or folder of the model that it was made from.
        method: how new rows came to be, as a tag.
        story: the same in a sentence or two.
        counts: rows by origin.
        call: that made it.
        citation: BibTeX.
        scores: results of an evaluation, nested at will.
    """
    loader, task = auto_class(model)
    trust = ", trust_remote_code=True" if is_factorised(model) else ""
    local = base_model.count("/") > 1 or base_model.startswith((".", "~")) or Path(base_model).exists()
    name = Path(base_model).name if local else base_model
    total = max(1, sum(counts.values()))
    lines = [
        "---",
        f"base_model:  # fill in: the hub id of {name}" if local else f"base_model: {json.dumps(base_model)}",
        "library_name: transformers",
        *([f"pipeline_tag: {task}"] if task is not None else []),
        "language:  # fill in: codes of the languages that this model is for",
        "license:  # fill in: the licence of the base model binds this one",
        "tags:",
        *(f"- {tag}" for tag in ("hyperofa", "vocabulary", method)),
        "---",
        "",
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
        "## How to load it",
        "",
        "```python",
        f"from transformers import {', '.join(sorted(['AutoTokenizer', loader]))}",
        "",
        'tokenizer = AutoTokenizer.from_pretrained("path/to/this/folder")',
        f'model = {loader}.from_pretrained("path/to/this/folder"{trust})',
        "```",
        "",
        "## How to go on",
        "",
        "The rows are a start: train the model on text of its new languages before use.",
        "",
        "```sh",
        "hyperofa pretrain --config pretrain --model path/to/this/folder",
        "```",
        "",
        "Any trainer of transformers will do, as it is a plain model."
        if not trust
        else "Its embeddings are factorised, E = F P: `modeling_factorised.py` has the code; any trainer will do.",
        "",
        "## How it was made",
        "",
        f"```{call.language}",
        call.text,
        "```",
    ]
    if citation is not None:
        lines += ["", "## Citation", "", "```bibtex", citation, "```"]
    return "\n".join(lines) + "\n"


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
