"""Which versions of other packages a result was made with."""

from functools import cache
from importlib.metadata import PackageNotFoundError, version

_PACKAGES = ("hyperofa", "torch", "lightning", "transformers", "tokenizers", "torchmetrics", "numpy", "scipy")


def versions() -> dict[str, str]:
    """Installed versions of the packages that decide a result, by name."""
    return {package: found for package in (*_PACKAGES, "faiss-cpu", "faiss-gpu") if (found := _version(package))}


@cache
def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
