"""What every model folder of ours holds beside the weights: where each row came from, a card, a manifest."""

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult
from transformers import PreTrainedModel

from hyperofa.models.card import CardFields, base_card, model_card
from hyperofa.models.manifest import PROVENANCE, seal
from hyperofa.models.saving import save_model
from hyperofa.models.sentence_modules import copy_modules
from hyperofa.runtime.calls import Call


@dataclass(frozen=True)
class Making:
    """How a model came to be, for its card and its manifest.

    Attributes:
        method: how new rows came to be, as a tag.
        story: the same in a sentence or two.
        base_model: hub id or folder of the model that it was made from.
        call: what made it.
        citation: BibTeX.
        source: folder or hub id where that model is now; `None` if it is in memory.
        languages: codes of those that the vocabulary is for.
        fields: what the card says before all else.
        repository: on the hub, where the folder will go.
    """

    method: str
    story: str
    base_model: str
    call: Call
    citation: str | None = None
    source: str | None = None
    languages: tuple[str, ...] = ()
    fields: CardFields | None = None
    repository: str | None = None


def write_model(
    model: PreTrainedModel,
    folder: Path,
    making: Making,
    columns: Sequence[str],
    rows: Iterable[Sequence[Any]],
    counts: dict[str, int],
    scores: dict[str, Any] | None = None,
    results: Sequence[EvalResult] = (),
) -> None:
    """Write the weights, the table of their origins, the card and the base model's modules; then `finish` it.

    Args:
        model: what to write.
        folder: is there.
        making: how it came to be.
        columns: of provenance.tsv.
        rows: of it, one a token.
        counts: tokens by origin.
        scores: results of an evaluation, for the card.
        results: the same for the hub.
    """
    save_model(model, folder)
    with (folder / PROVENANCE).open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, delimiter="\t", lineterminator="\n")
        table.writerow(columns)
        table.writerows(rows)
    card = model_card(
        model,
        base_model=making.base_model,
        method=making.method,
        story=making.story,
        counts=counts,
        call=making.call,
        citation=making.citation,
        scores=scores,
        results=results,
        base=base_card(making.source),
        languages=making.languages,
        fields=making.fields,
        embeds_sentences=making.source is not None and copy_modules(making.source, folder),
        **({} if making.repository is None else {"folder": making.repository}),
    )
    (folder / "README.md").write_text(card, encoding="utf-8")


def finish(folder: Path, model: PreTrainedModel, making: Making, counts: dict[str, int], **facts: Any) -> None:
    """Write the manifest, last of all.

    Args:
        folder: all other files are written.
        model: as it was saved there.
        making: how it came to be.
        counts: tokens by origin.
        facts: what else the manifest tells.
    """
    seal(folder, model, {"method": making.method, "command": making.call.text, "counts": counts, **facts})
