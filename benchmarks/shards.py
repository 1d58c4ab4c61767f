"""Vectors beyond memory: `hyperofa prepare` over a folder of shards, at two sizes: what grows with the words?

    python benchmarks/shards.py DATA SOURCE_MODEL OUTPUT [--millions 2 20] [--dim 50]

DATA is as for realworld.sh; its words are joined in pairs to new ones, 200,000 a shard, in its languages. Prints a
table of wall time and peak memory: anonymous pages, which the process owns, and all resident ones, with what the maps
have touched and the system may take back.
"""

import argparse
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from tqdm import tqdm

from hyperofa.vectors.conversion import build_store
from hyperofa.vectors.store import WordVectors

_SHARD = 200_000
_DISTINCT = 5_000  # vectors; enough that no line is guessed from another


def write_shards(words: WordVectors, folder: Path, count: int, dim: int) -> None:
    """Write `count` words in text files of `_SHARD`, most frequent first, unless they are there."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    numbers = [" ".join(f"{x:.3f}" for x in row) for row in rng.standard_normal((_DISTINCT, dim))]
    languages = [words.languages[number] for number in words.language_ids]
    plain = list(words.words)
    by_language = {code: [i for i, each in enumerate(languages) if each == code] for code in words.languages}
    for shard in tqdm(range(-(-count // _SHARD)), desc="writing shards"):
        path = folder / f"{shard:04}.vec"
        if path.exists():
            continue
        rows = min(_SHARD, count - shard * _SHARD)
        code = words.languages[shard % len(words.languages)]
        own = by_language[code]
        first, second = rng.integers(0, len(own), (2, rows))
        lines = [f"{rows} {dim}"]
        for number, (one, other) in enumerate(zip(first, second, strict=True)):
            word = plain[own[one]] + plain[own[other]]
            lines.append(f"{code}:{word}{number % 10}{shard} {numbers[(number + shard) % _DISTINCT]}")
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def measure(command: list[str]) -> tuple[float, int, int]:
    """Wall seconds, peak anonymous and peak resident kibibytes of a process."""
    start = time.perf_counter()
    process = subprocess.Popen(command)
    anonymous = resident = 0
    while process.poll() is None:
        try:
            text = Path(f"/proc/{process.pid}/status").read_text(encoding="ascii")
        except OSError:
            break
        values = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
        anonymous = max(anonymous, int(values.get("RssAnon", "0 kB").split()[0]))
        resident = max(resident, int(values.get("VmHWM", "0 kB").split()[0]))
        time.sleep(0.1)
    if process.wait() != 0:
        sys.exit(process.returncode)
    return time.perf_counter() - start, anonymous, resident


def main() -> None:
    """Write, prepare, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("source")
    parser.add_argument("output", type=Path)
    parser.add_argument("--millions", type=int, nargs="+", default=[2, 20])
    parser.add_argument("--dim", type=int, default=50)
    options = parser.parse_args()
    store = options.output / "words"
    words = WordVectors.load(store) if store.is_dir() else build_store([str(options.data / "vectors.vec")], store)
    sys.stdout.write(
        "| words | shards | wall s | words/s | own memory, GiB | resident, GiB |\n|---|---|---|---|---|---|\n"
    )
    for millions in options.millions:
        shards = options.output / f"shards-{millions}"
        write_shards(words, shards, millions * 1_000_000, options.dim)
        command = [sys.executable, "-m", "hyperofa", "prepare", "--source_model", options.source]
        command += ["--target_tokenizer", str(options.data / "target_tokenizer"), "--vectors", str(shards)]
        command += ["--source_languages", "eng", "--vectors_dtype", "float16", "--duplicate_words", "first"]
        command += ["--output", str(options.output / f"bundle-{millions}"), "--overwrite", "true"]
        seconds, anonymous, resident = measure(command)
        sys.stdout.write(
            f"| {millions} M | {len(list(shards.iterdir()))} | {seconds:.0f} | {millions * 1e6 / seconds:,.0f} "
            f"| {anonymous / 2**20:.2f} | {resident / 2**20:.2f} |\n"
        )
        sys.stdout.flush()


if __name__ == "__main__":
    main()
