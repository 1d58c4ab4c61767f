"""Bundles on the Hugging Face hub."""

from pathlib import Path

from hyperofa.runtime.hub import download, push_folder

_PARTS = ("*.json", "*.npy", "*.npz", "*.safetensors", "*.txt", "*.model", "*.jinja", "words/words.bin")
_CARD = """---
library_name: hyperofa
tags:
- hyperofa
- bundle
license:  # fill in: that of the word vectors and of the source model, which are in it, binds this bundle
---

# A bundle of hyperofa

Word vectors, a source model's embeddings and a target tokenizer, matched: what `hyperofa fit` and `hyperofa export`
read.

```
{summary}
```

```python
import hyperofa

bundle = hyperofa.Bundle.from_pretrained("{repository}")
```
"""


def fetch(name: str | Path) -> Path:
    """The folder of a bundle: arrays, JSON and tokenizers; nothing else of a repository is brought here.

    Args:
        name: folder, or repository of the hub.

    Raises:
        InputError: neither.
    """
    return download(str(name), _PARTS, "--bundle")


def push(folder: Path, summary: str, repository: str) -> str:
    """Upload a bundle; where it is then.

    Args:
        folder: of it.
        summary: its counts, below a line that names the folder.
        repository: `USER/NAME`.

    Raises:
        InputError: no access to the repository.
    """
    card = _CARD.format(summary=summary.partition("\n")[2], repository=repository)
    return push_folder(folder, repository, card=card, message="Upload a bundle")
