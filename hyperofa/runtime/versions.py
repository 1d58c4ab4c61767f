"""Which versions of other packages a result was made with."""

from importlib.metadata import PackageNotFoundError, version

_PACKAGES = ("hyperofa", "torch", "lightning", "transformers", "tokenizers", "torchmetrics", "numpy", "scipy")


def versions() -> dict[str, str]:
    """Installed versions of the packages that decide a result, by name."""
    found = {}
    for package in (*_PACKAGES, "faiss-cpu", "faiss-gpu"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
