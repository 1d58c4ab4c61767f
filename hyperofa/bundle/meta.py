"""What a bundle is: widths, counts, languages, seeds, versions, content hashes, as `meta.json` has them."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_type_hints

from hyperofa.errors import InputError
from hyperofa.runtime.folders import read_json
from hyperofa.runtime.records import misfit

FORMAT = 1
_FIELDS = {"space": "training_fingerprint"}  # of layout 1, where a field has another name


@dataclass(frozen=True)
class Meta:
    """What `meta.json` holds.

    Attributes:
        format: version of the folder layout.
        source_model: folder or hub id of the PLM.
        source_hash: hash of the PLM's embedding rows.
        target_hash: hash of the target vocabulary.
        training_fingerprint: hash of all that a hypernetwork is trained on; nets fit every bundle with the same one.
        word_dim: d.
        embedding_dim: E.
        input_dim: K_in, width of the input coordinates.
        output_dim: K_out, width of the output coordinates; 0 without an untied head.
        source_tokens: S, rows of the source embeddings.
        target_tokens: T, highest target id + 1.
        source_languages: languages whose words count on the source side; `None` for all.
        target_languages: likewise on the target side.
        explained: part of the source rows' squared norm that F P keeps.
        counts: the numbers of `Bundle.summary`.
        seed: of the split.
        versions: of the packages.
        reference: made as the published code does (`reference.QUIRKS`).
    """

    format: int
    source_model: str
    source_hash: str
    target_hash: str
    training_fingerprint: str
    word_dim: int
    embedding_dim: int
    input_dim: int
    output_dim: int
    source_tokens: int
    target_tokens: int
    source_languages: list[str] | None
    target_languages: list[str] | None
    explained: float
    counts: dict[str, int]
    seed: int
    versions: dict[str, str]
    reference: bool = False

    @property
    def coordinate_dim(self) -> int:
        """K, the width a hypernetwork predicts."""
        return self.input_dim + self.output_dim

    @classmethod
    def read(cls, folder: Path, flag: str) -> "Meta":
        """What a bundle's `meta.json` says, of whatever types it says it.

        Args:
            folder: of the bundle.
            flag: that named it, for errors.

        Raises:
            InputError: no bundle there, or one of another layout.
        """
        if not (folder / "meta.json").is_file():
            raise InputError(
                f"{flag} {folder}: expected a folder written by `hyperofa prepare`, found no meta.json in it"
            )
        values = read_json(folder / "meta.json")
        given: dict[str, Any] = values if isinstance(values, dict) else {}
        named = {_FIELDS.get(name, name): value for name, value in given.items()}
        if named.get("format") != FORMAT or set(named) != set(cls.__dataclass_fields__):
            raise InputError(
                f"{flag} {folder}: expected a bundle of layout {FORMAT}, found another; run `hyperofa prepare` again"
            )
        return cls(**named)

    def misfit(self) -> str | None:
        """The first field whose type is wrong, and what is wrong with it."""
        kinds = get_type_hints(Meta).items()
        found = ((name, misfit(getattr(self, name), kind, name)) for name, kind in kinds)
        return next((f"{name} of another type than {wrong}" for name, wrong in found if wrong is not None), None)

    def as_json(self) -> dict[str, Any]:
        """The object for `meta.json`."""
        names = {field: name for name, field in _FIELDS.items()}
        return {names.get(name, name): value for name, value in asdict(self).items()}
