"""The README's table of methods, from their records: `make readme` writes it, a test compares it."""

import re
from pathlib import Path

from hyperofa.methods.registry import METHODS

README = Path(__file__).parents[2] / "README.md"
_TABLE = re.compile(r"(\| method \|.*\n\|---\|---\|\n)(?:\| .*\n)*")


def with_methods(text: str) -> str:
    """The README's text with a row for each method there is, in the registry's order."""
    rows = "".join(f"| `{method.name}` | {method.about} |\n" for method in METHODS.values())
    replaced, tables = _TABLE.subn(lambda table: table[1] + rows, text)
    if tables != 1:
        raise ValueError(f"{README}: expected one table of methods, found {tables}")
    return replaced


if __name__ == "__main__":
    README.write_text(with_methods(README.read_text(encoding="utf-8")), encoding="utf-8")
