"""Killed at random moments and called again, or spread over processes: the same bytes."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import write_vectors

import hyperofa.store
from hyperofa.artifacts import resumed_folder, sha256_file
from hyperofa.conversion import convert_vectors
from hyperofa.errors import InputError
from hyperofa.prepare import prepare

HERE = Path(__file__).parent


def hashes(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): sha256_file(path) for path in files}


def run(*command: str | Path, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, *map(str, command)],
        capture_output=True,
        timeout=180,
        text=True,
        env={**os.environ, "PYTHONPATH": str(HERE.parent), **environment},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.fixture(scope="module")
def many_words(tmp_path_factory):
    """Two files of words, some of them twice."""
    rng = np.random.default_rng(0)
    syllables = ["ka", "lo", "mi", "the", "an", "er", "ung", "st", "re", "in"]
    folder = tmp_path_factory.mktemp("many")
    for number in range(2):
        words = {f"{'eng' if i % 3 else 'deu'}:{''.join(rng.choice(syllables, 4))}" for i in range(3000)}
        write_vectors(folder / f"{number}.vec", {word: rng.standard_normal(12) for word in sorted(words)})
    return folder


@pytest.fixture(scope="module")
def flags(model_folders, tokenizer_folders, many_words):
    return {
        "source_model": str(model_folders["bert"]),
        "target_tokenizer": str(tokenizer_folders["unigram"]),
        "vectors": [str(many_words)],
        "source_languages": ["eng"],
        "coordinate_dim": 8,
        "duplicate_words": "first",
    }


@pytest.fixture(scope="module")
def whole(flags, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hyperofa.shards.SHARD", 300)
        return prepare(**flags, output=tmp_path_factory.mktemp("whole") / "bundle").path


def words_of(flags):
    for name, value in flags.items():
        for each in value if isinstance(value, list) else [value]:
            yield from (f"--{name}", str(each))


@pytest.mark.parametrize("seed", [0, 1])
def test_a_killed_prepare_goes_on_where_it_was(seed, flags, whole, tmp_path):
    command = ["prepare", *words_of(flags), "--output", str(tmp_path / "bundle")]
    said = run(HERE / "killed.py", str(seed), "6", *command)
    assert "killed" in said
    assert hashes(tmp_path / "bundle") == hashes(whole)
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_processes_share_the_work_of_prepare(flags, whole, tmp_path):
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    start = "import hyperofa.shards, hyperofa.cli; hyperofa.shards.SHARD = 300; hyperofa.cli.main()"
    (tmp_path / "start.py").write_text(start, encoding="utf-8")
    command = ["prepare", *words_of(flags), "--output", str(tmp_path / "bundle")]
    run(*launch, tmp_path / "start.py", *command, OMP_NUM_THREADS="1")
    assert hashes(tmp_path / "bundle") == hashes(whole)


@pytest.mark.parametrize("stop", [1, 700, 2500])
def test_conversion_goes_on_from_its_last_note(stop, many_words, tmp_path, monkeypatch):
    files = sorted(map(str, many_words.glob("*.vec")))
    whole = convert_vectors(files, tmp_path / "whole", duplicates="first")
    monkeypatch.setattr(hyperofa.store, "CHECKPOINT", 600)
    monkeypatch.setattr("hyperofa.readers._BLOCK", 100)
    append, seen = hyperofa.store.StoreWriter.append, []

    def interrupted(self, entries, vectors):
        seen.extend(entries)
        if len(seen) > stop:
            raise KeyboardInterrupt
        append(self, entries, vectors)

    with monkeypatch.context() as patch:
        patch.setattr(hyperofa.store.StoreWriter, "append", interrupted)
        with pytest.raises(KeyboardInterrupt):
            convert_vectors(files, tmp_path / "again", duplicates="first")
    read = []
    note = hyperofa.store.StoreWriter.note
    monkeypatch.setattr(hyperofa.store.StoreWriter, "note", lambda self, rows: (read.append(rows), note(self, rows))[1])
    again = convert_vectors(files, tmp_path / "again", duplicates="first")
    assert read[0] == 100 + stop // 600 * 600
    assert again.content_hash == whole.content_hash
    assert hashes(again.folder) == hashes(whole.folder)


def test_other_settings_do_not_go_on_from_what_was_left(tmp_path):
    def interrupted():
        with resumed_folder(tmp_path / "a", "one") as folder:
            (folder / "part").touch()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    with resumed_folder(tmp_path / "a", "two") as folder:
        assert list(folder.iterdir()) == []
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_an_error_leaves_nothing(tmp_path):
    def refused():
        with resumed_folder(tmp_path / "a", "one") as folder:
            (folder / "part").touch()
            raise InputError("no")

    with pytest.raises(InputError):
        refused()
    assert list(tmp_path.iterdir()) == []


def test_only_one_may_write(tmp_path):
    with resumed_folder(tmp_path / "a", "one") as folder:
        with pytest.raises(InputError, match="another process is writing"), resumed_folder(tmp_path / "a", "one"):
            pass
        assert folder.is_dir()
