"""New vocabularies for pretrained language models: a hypernetwork predicts the token embeddings."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hyperofa.models.loading import load_model

__all__ = ["load_model"]


def __getattr__(name: str) -> Any:
    if name == "load_model":  # late, as torch and transformers take their time
        from hyperofa.models.loading import load_model

        return load_model
    raise AttributeError(f"module {__name__} has no attribute {name}")
