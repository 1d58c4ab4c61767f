"""New vocabularies for pretrained language models: a hypernetwork predicts the token embeddings."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hyperofa.bundle.bundle import Bundle
    from hyperofa.bundle.prepare import prepare
    from hyperofa.errors import InputError
    from hyperofa.evaluation.evaluate import evaluate
    from hyperofa.evaluation.scores import Scores
    from hyperofa.evaluation.task import register_task
    from hyperofa.experiments.ablate import ablate
    from hyperofa.export.initialise import Initialised, initialise
    from hyperofa.inspection.doctor import Diagnosis, diagnose, doctor
    from hyperofa.inspection.vector_info import inspect_vectors
    from hyperofa.methods.registry import register_method
    from hyperofa.models.expand import expand
    from hyperofa.models.loading import load_model
    from hyperofa.models.manifest import verify
    from hyperofa.models.trim import trim
    from hyperofa.nets.registry import register_net
    from hyperofa.pretraining.distill import distill
    from hyperofa.pretraining.pretrain import pretrain
    from hyperofa.training.fit import fit
    from hyperofa.training.hypernetwork import Hypernetwork
    from hyperofa.vectors.aligning import align_vectors
    from hyperofa.vectors.formats import convert_vectors
    from hyperofa.vectors.merging import merge_vectors
    from hyperofa.vectors.train import train_vectors

_HOMES = {
    "Bundle": "bundle.bundle",
    "Hypernetwork": "training.hypernetwork",
    "Initialised": "export.initialise",
    "InputError": "errors",
    "Scores": "evaluation.scores",
    "ablate": "experiments.ablate",
    "align_vectors": "vectors.aligning",
    "convert_vectors": "vectors.formats",
    "Diagnosis": "inspection.doctor",
    "diagnose": "inspection.doctor",
    "distill": "pretraining.distill",
    "doctor": "inspection.doctor",
    "inspect_vectors": "inspection.vector_info",
    "evaluate": "evaluation.evaluate",
    "register_task": "evaluation.task",
    "expand": "models.expand",
    "fit": "training.fit",
    "initialise": "export.initialise",
    "load_model": "models.loading",
    "merge_vectors": "vectors.merging",
    "prepare": "bundle.prepare",
    "pretrain": "pretraining.pretrain",
    "register_method": "methods.registry",
    "register_net": "nets.registry",
    "train_vectors": "vectors.train",
    "trim": "models.trim",
    "verify": "models.manifest",
}
__all__ = [
    "Bundle",
    "Diagnosis",
    "Hypernetwork",
    "Initialised",
    "InputError",
    "Scores",
    "ablate",
    "align_vectors",
    "convert_vectors",
    "diagnose",
    "distill",
    "doctor",
    "evaluate",
    "expand",
    "fit",
    "initialise",
    "inspect_vectors",
    "load_model",
    "merge_vectors",
    "prepare",
    "pretrain",
    "register_method",
    "register_net",
    "register_task",
    "train_vectors",
    "trim",
    "verify",
]


def __getattr__(name: str) -> Any:
    """A public name, imported when it is first asked for: torch and transformers take their time."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__} has no attribute {name}")
    found = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return __all__
