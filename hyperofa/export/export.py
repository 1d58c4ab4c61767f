"""`hyperofa export`: the flags of an initialisation, and a folder that a killed export goes on with."""

import shutil
from pathlib import Path
from typing import Annotated

from hyperofa.bundle.bundle import Bundle
from hyperofa.export.checks import check_choice, check_factorised, text_sample
from hyperofa.export.initialise import Export, initialise
from hyperofa.methods.baselines import OFAConfig
from hyperofa.models.card import CardFields
from hyperofa.runtime.folders import fingerprint, read_json, resumed_folder
from hyperofa.runtime.hashing import sha256_text
from hyperofa.runtime.hub import check_repository, push_folder
from hyperofa.runtime.processes import process_group
from hyperofa.runtime.ranges import Bounds, Seed, in_range
from hyperofa.runtime.sharding import ShardCache
from hyperofa.runtime.versions import versions
from hyperofa.tokens.canonical import OverlapKind

_SHARDS = "shards"
_Multiple = Annotated[int, Bounds(1, 65_536)]  # a larger one would fill memory with rows that no token has


@in_range()
def export(
    bundle: Path,
    method: str,
    output: Path,
    checkpoint: list[Path] | None = None,
    source_model: str | None = None,
    mixing: OFAConfig = OFAConfig(),  # noqa: B008  frozen
    ofa_share: float | None = 0.0,
    copied: list[OverlapKind] | None = None,
    parallel: list[Path] | None = None,
    pad_to_multiple_of: _Multiple | None = None,
    seed: Seed = 0,
    least_confidence: float = 0.0,
    overwrite: bool = False,
    text: list[Path] | None = None,
    scores: Path | None = None,
    factorised: bool = False,
    card: CardFields = CardFields(),  # noqa: B008  frozen
    push_to_hub: str | None = None,
) -> Export:
    """Write the source model with the target vocabulary, its rows initialised by one method.

    Killed, it goes on where it was when called again with the same flags. Under `torchrun` the processes share the
    prediction; the folder has the same bytes.

    Args:
        bundle: folder written by `hyperofa prepare`; after --reference true, hyperofa, ofa and random do as the
            published code does.
        method: how the rows are made: one of `methods.registry.METHODS`, or one that you have registered.
        output: model folder to write.
        checkpoint: trained hypernetwork of `hyperofa fit`; the mean over several of them if the flag is repeated.
        mixing: how ofa_tuned, and the OFA that hyperofa is blended with, mix source rows.
        ofa_share: part of ofa_tuned in every row that hyperofa predicts, from 0 to 1; null for the share that does best
            on the validation tokens.
        source_model: where the source model is now, if it moved since `hyperofa prepare`.
        copied: kinds of overlap whose rows are copied (role, exact, case, symbol); other tokens of the overlap are
            predicted if the method can. The method's own choice if not given.
        parallel: files of parallel text, a source sentence, a tab and its translation a line, for transtokenizer.
        pad_to_multiple_of: round the number of rows up to a multiple of this.
        seed: of the noise of methods that draw any.
        least_confidence: rows that hyperofa predicts with a lower confidence, from 0 to 1, fall back like those of
            tokens without words. The confidence is the probability that the true row is among the tenth of the source
            rows that are nearest to the predicted one; 0 to keep all.
        overwrite: replace a folder that is already there.
        text: files of text that the source model knows, one sentence a line. If given, what the new tokens take from
            a causal or masked language model is measured on their first lines and written to the manifest, with a
            warning above 1 % of the mass; see `hyperofa evaluate`.
        scores: JSON file of an evaluation of this very model, for its card.
        factorised: keep the embeddings as coordinates F and primitives P, the parameters that the papers count; needs a
            bundle of --coordinate_dim below the embedding width. All rows are F P then, copied ones too.
        card: what the model's card tells the hub; the licence is the base model's if its card has one, the languages
            are those of the vectors.
        push_to_hub: repository of the Hugging Face hub to upload the folder to, USER/NAME; made as a private one if it
            is not there.

    Returns:
        What was written.

    Raises:
        InputError: an input is missing or belongs to another bundle.
    """
    check_repository(push_to_hub)
    opened = Bundle.load(bundle)
    check_choice(opened, method, checkpoint or [], ofa_share, least_confidence, mixing, parallel or ())
    if factorised:
        check_factorised(opened)
    source_model = source_model or opened.source_model
    measured = None if scores is None else read_json(scores, "--scores")
    lines = text_sample(text or [])
    inputs: list[str | Path] = [bundle, source_model, *(checkpoint or []), *(text or []), *(parallel or [])]
    inputs += [] if scores is None else [scores]
    settings = (
        method, mixing, ofa_share, copied, pad_to_multiple_of, seed, least_confidence, factorised, card, push_to_hub,
    )  # fmt: skip
    key = sha256_text(fingerprint(*inputs), f"{settings} {versions()}")
    parameters = url = None
    with (
        process_group() as group,
        resumed_folder(output, key, overwrite, group, kind="model", inputs=inputs) as folder,
    ):
        initialised = initialise(
            opened,
            method,
            hypernetwork=checkpoint,
            source_model=source_model,
            mixing=mixing,
            ofa_share=ofa_share,
            copied=copied,
            parallel=parallel or (),
            seed=seed,
            least_confidence=least_confidence,
            cache=ShardCache(folder / _SHARDS, group),
        )
        if group.first:
            model = initialised.write(folder, factorised, pad_to_multiple_of, measured, card, push_to_hub)
            shutil.rmtree(folder / _SHARDS, ignore_errors=True)
            parameters = initialised.finish(folder, model, lines)
    if group.first and push_to_hub is not None:
        url = push_folder(output, push_to_hub)
    return initialised.told(output, parameters if factorised else None, url)
