"""What a command says when it has ended well: what it wrote, how long that took, what to do next.

It goes to standard error, so that what a command prints can be piped. No file has the times, as equal runs write equal
bytes.
"""

import json
import sys
from pathlib import Path

_VECTORS = "hyperofa prepare --vectors {path} --source_model MODEL --target_tokenizer TOKENIZER --output DIR"
_JOIN = _VECTORS.replace("{path}", "WORDS {path}")
_MEASURE = "hyperofa evaluate --model {path} --source_model MODEL --data DATA"
_NEXT = {
    "prepare": "hyperofa fit --data.bundle {path} --data.text FILE",
    "fit": "hyperofa export --bundle BUNDLE --method hyperofa --checkpoint {path} --output DIR",
    "export": f"{_MEASURE}\nhyperofa pretrain --config pretrain --model {{path}} --text FILE --output DIR",
    "export, without a head": f"{_MEASURE}\n"
    "hyperofa distill --config distill --model {path} --source_model MODEL --parallel FILE --output DIR",
    "pretrain": "",
    "distill": _MEASURE,
    "expand": "hyperofa prepare --source_model MODEL --target_tokenizer {path} --vectors FILE --output DIR",
    "trim": _MEASURE,
    "vectors train": _VECTORS,
    "vectors train, a space of its own": "hyperofa vectors align --vectors LANG={path} --into WORDS --output DIR",
    "vectors train, a space that was there": _JOIN,
    "vectors align": _JOIN,
    "vectors convert": _VECTORS,
    "vectors merge": _VECTORS,
    "hewitt": "open {path}/curves.png",
    "ablate": "open {path}/report.html",
    "demo": "open {path}/README.md",
}


def close(command: str, path: str | Path | None, seconds: float, kind: str | None = None) -> None:
    """Say it, of a command that wrote something.

    Args:
        command: its name.
        path: what it wrote; `None` for nothing.
        seconds: since it began.
        kind: of what it wrote, where that decides what comes next, as in `_NEXT`.
    """
    if path is None or command not in _NEXT:
        return
    headless = f"{command}, without a head"
    case = headless if headless in _NEXT and _has_no_head(path) else f"{command}, {kind}"
    steps = _NEXT.get(case, _NEXT[command]).format(path=path).splitlines()
    lines = [f"wrote {path} in {duration(seconds)}", *(f"next: {step}" for step in steps)]
    sys.stderr.write("".join(f"{line}\n" for line in lines))


def _has_no_head(path: str | Path) -> bool:
    """Whether a model folder has a body alone, as sentence encoders do, which says nothing of any token."""
    try:
        names = json.loads((Path(path) / "config.json").read_text(encoding="utf-8"))["architectures"]
        return all(name.endswith("Model") and "Head" not in name for name in names)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def duration(seconds: float, tenths: bool = True) -> str:
    """A time in words: 0.4 s, 12 s, 3 min 5 s, 2 h 7 min.

    Args:
        seconds: that it took.
        tenths: tell them where it is less than ten seconds.
    """
    if tenths and seconds < 10:
        return f"{seconds:.1f} s"
    minutes, left = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {left} s" if minutes else f"{left} s"
    return f"{minutes // 60} h {minutes % 60} min"
