"""Killed at random moments and called again, or spread over processes: the same bytes."""

import contextlib
from pathlib import Path

import numpy as np
import pytest

import hyperofa.vectors.store
from hyperofa.bundle.prepare import prepare
from hyperofa.cli import main
from hyperofa.errors import InputError
from hyperofa.runtime.folders import resumed_folder, sha256_file
from hyperofa.vectors.conversion import build_store
from tests import forked
from tests.conftest import CONFIGS, QUIET, TINY_TEXT, TINY_TOKENS, contents, write_vectors


def hashes(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock")
    return {str(path.relative_to(folder)): sha256_file(path) for path in files}


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
        patch.setattr("hyperofa.bundle.pooling.SHARD", 300)
        return prepare(**flags, output=tmp_path_factory.mktemp("whole") / "bundle").path


def words_of(flags):
    for name, value in flags.items():
        for each in value if isinstance(value, list) else [value]:
            yield from (f"--{name}", str(each))


@pytest.fixture
def small_shards(monkeypatch):
    """Something to go on from, in processes forked from now on."""
    monkeypatch.setattr("hyperofa.bundle.pooling.SHARD", 300)
    monkeypatch.setattr("hyperofa.vectors.store.CHECKPOINT", 500)
    for module in ("training.predict_tokens", "methods.baselines"):
        monkeypatch.setattr(f"hyperofa.{module}.SHARD", 32)


@pytest.mark.parametrize("seed", [0, 1])
def test_a_killed_prepare_goes_on_where_it_was(seed, flags, whole, tmp_path, small_shards):
    command = ["prepare", *words_of(flags), "--output", "bundle"]
    seconds = forked.run(lambda: main(command), tmp_path / "whole")
    killed = tmp_path / "killed"
    assert forked.run_killed(lambda: main(command), killed, (killed / "bundle").exists, seconds, kills=6, seed=seed) > 0
    assert hashes(killed / "bundle") == hashes(tmp_path / "whole" / "bundle") == hashes(whole)
    assert contents(killed) == ["bundle"]


def test_processes_share_the_work_of_prepare(flags, whole, tmp_path, small_shards):
    forked.run(lambda: main(["prepare", *words_of(flags), "--output", "bundle"]), tmp_path / "shared", processes=2)
    assert hashes(tmp_path / "shared" / "bundle") == hashes(whole)


def fit_flags(config, bundle, text_file):
    flags = ["fit", "--config", str(CONFIGS / f"{config}.yaml"), "--data.bundle", str(bundle), *QUIET]
    flags += ["--trainer.logger.init_args.save_dir", "runs"]
    if config == "fit":
        return [*flags, *TINY_TEXT, "--trainer.max_epochs", "5", "--data.text", str(text_file)]
    step = ["--model.schedule", "step", "--model.step_epochs", "2", "--model.net.init_args.dropout", "0.3"]
    return [*flags, *TINY_TOKENS, *step, "--trainer.max_epochs", "12", "--data.num_workers", "1"]


@pytest.mark.slow
@pytest.mark.parametrize("config", ["fit", "tokens"])
def test_a_killed_fit_goes_on_where_it_was(config, bundles, text_file, tmp_path):
    flags = fit_flags(config, bundles["bert8"], text_file)
    seconds = forked.run(lambda: main(flags), tmp_path / "whole")
    runs, killed = Path("runs", config), tmp_path / "killed"
    another = killed / runs / "version_1"
    assert forked.run_killed(lambda: main(flags), killed, another.exists, seconds, kills=6, seed=1) > 0
    found = {name: hashes(tmp_path / name / runs / "version_0") for name in ("whole", "killed")}
    assert found["killed"] == found["whole"]
    assert {Path(name).name for name in found["whole"]} == {
        "best.ckpt", "last.ckpt", "metrics.csv", "config.yaml", "curves.png",
    }  # fmt: skip


@pytest.fixture(scope="module")
def three_epochs(bundles, text_file, tmp_path_factory):
    """The words of a `fit` of three epochs, and its files."""
    flags = [*fit_flags("tokens", bundles["bert8"], text_file), "--trainer.max_epochs", "3"]
    folder = tmp_path_factory.mktemp("three_epochs")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        main(flags)
    return flags, hashes(folder)


@pytest.mark.parametrize("epoch", [0, 1, 2])
def test_a_fit_goes_on_from_the_end_of_an_epoch(epoch, three_epochs, tmp_path, monkeypatch, caplog):
    flags, whole = three_epochs
    monkeypatch.chdir(tmp_path)

    def stop(self, trainer, module):
        if trainer.current_epoch >= epoch:
            raise KeyboardInterrupt

    hook = "on_validation_end" if epoch < 2 else "on_fit_end"
    with monkeypatch.context() as patch:
        patch.setattr(f"hyperofa.training.curves.CurvePlot.{hook}", stop, raising=False)
        with contextlib.suppress(SystemExit, KeyboardInterrupt):
            main(flags)
    left = Path("runs/tokens/version_0/.unfinished")
    assert left.is_file()
    caplog.clear()
    main(flags)
    assert "Going on with runs/tokens/version_0" in caplog.text
    assert hashes(tmp_path) == whole
    main(flags)
    assert contents(Path("runs/tokens")) == ["version_0", "version_1"]


@pytest.mark.parametrize("method", ["hyperofa", "ofa_tuned"])
def test_export_killed_or_shared_has_the_same_bytes(method, bundles, fitted, tmp_path, small_shards):
    flags = ["export", "--bundle", str(bundles["bert"]), "--method", method, "--output", "model"]
    if method == "hyperofa":
        flags += ["--checkpoint", str(fitted["tokens"] / "checkpoints" / "best.ckpt"), "--ofa_share", "0.5"]
    seconds = forked.run(lambda: main(flags), tmp_path / "whole")
    killed = tmp_path / "killed"
    assert forked.run_killed(lambda: main(flags), killed, (killed / "model").exists, seconds, kills=8, seed=2) > 0
    before = (tmp_path / "said.txt").read_text(encoding="utf-8").count("rows")
    forked.run(lambda: main(flags), tmp_path / "shared", processes=2)
    assert (tmp_path / "said.txt").read_text(encoding="utf-8").count("rows") == before + 1
    whole = hashes(tmp_path / "whole")
    assert hashes(killed) == whole
    assert hashes(tmp_path / "shared") == whole
    assert not any("shards" in name for name in whole)


def test_a_fit_does_not_write_over_another_run(bundles, text_file, tmp_path, capsys):
    flags = [*fit_flags("tokens", bundles["bert8"], text_file), "--trainer.max_epochs", "1"]
    flags += ["--trainer.logger.init_args.save_dir", str(tmp_path), "--trainer.logger.init_args.version", "mine"]
    main(flags)
    before = hashes(tmp_path)
    with pytest.raises(SystemExit, match="2"):
        main(flags)
    assert "found another run; give another --trainer.logger.init_args.version" in capsys.readouterr().err
    assert hashes(tmp_path) == before


def test_training_does_not_go_on_from_a_net_alone(fitted, capsys):
    best = fitted["tokens"] / "checkpoints" / "best.ckpt"
    with pytest.raises(SystemExit, match="2"):
        main(["fit", "--config", str(fitted["tokens"] / "config.yaml"), "--ckpt_path", str(best)])
    assert "found the net alone; give last.ckpt" in capsys.readouterr().err


@pytest.mark.parametrize("stop", [1, 700, 2500])
def test_conversion_goes_on_from_its_last_note(stop, many_words, tmp_path, monkeypatch):
    files = sorted(map(str, many_words.glob("*.vec")))
    whole = build_store(files, tmp_path / "whole", duplicates="first")
    monkeypatch.setattr(hyperofa.vectors.store, "CHECKPOINT", 600)
    monkeypatch.setattr("hyperofa.vectors.text_reader.BLOCK", 100)
    append, seen = hyperofa.vectors.store.StoreWriter.append, []

    def interrupted(self, entries, vectors):
        seen.extend(entries)
        if len(seen) > stop:
            raise KeyboardInterrupt
        append(self, entries, vectors)

    with monkeypatch.context() as patch:
        patch.setattr(hyperofa.vectors.store.StoreWriter, "append", interrupted)
        with pytest.raises(KeyboardInterrupt):
            build_store(files, tmp_path / "again", duplicates="first")
    read = []
    note = hyperofa.vectors.store.StoreWriter.note
    monkeypatch.setattr(
        hyperofa.vectors.store.StoreWriter, "note", lambda self, rows: (read.append(rows), note(self, rows))[1]
    )
    again = build_store(files, tmp_path / "again", duplicates="first")
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
    assert contents(tmp_path) == ["a"]


def test_an_error_leaves_nothing(tmp_path):
    def refused():
        with resumed_folder(tmp_path / "a", "one") as folder:
            (folder / "part").touch()
            raise InputError("no")

    with pytest.raises(InputError):
        refused()
    assert contents(tmp_path) == []


def test_only_one_may_write(tmp_path):
    def write():
        with pytest.raises(InputError, match="another process is writing"), resumed_folder(tmp_path / "a", "one"):
            pass

    with resumed_folder(tmp_path / "a", "one") as folder:
        forked.run(write, tmp_path / "other")
        assert folder.is_dir()
