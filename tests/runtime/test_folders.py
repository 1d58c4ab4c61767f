"""Folders are whole or absent, and nothing is replaced but what hyperofa wrote."""

import json
import os
import signal
import stat
from pathlib import Path

import pytest

from hyperofa.errors import InputError
from hyperofa.runtime.folders import fingerprint, kept_folder, new_folder, resumed_folder, whole_file, write_json
from hyperofa.runtime.marks import MARK
from tests import forked


def new(path, overwrite=False, **options):
    return new_folder(path, overwrite, **{"kind": "bundle"} | options)


def resumed(path, overwrite=False, **options):
    return resumed_folder(path, "0" * 64, overwrite, **{"kind": "bundle"} | options)


def kept(path, overwrite=False, **options):
    options = {"key": "0" * 64, "kind": "bundle", "unfinished": ["checkpoint"]} | options
    return kept_folder(path, overwrite=overwrite, **options)


WAYS = pytest.mark.parametrize("way", [new, resumed, kept])


def write(way, path, text="new", **options):
    with way(path, **options) as folder:
        (folder / "parts").mkdir()
        (folder / "parts" / "one").write_text(text)


def names(folder: Path) -> list[str]:
    """What there is beside a folder and in it, but for locks."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.name.endswith(".lock"))


@WAYS
def test_what_hyperofa_wrote_is_replaced(way, tmp_path):
    write(way, tmp_path / "out", "old")
    with pytest.raises(InputError, match=r"out already exists and is not empty; .*overwrite=True"):
        write(way, tmp_path / "out")
    write(way, tmp_path / "out", overwrite=True)
    assert (tmp_path / "out" / "parts" / "one").read_text() == "new"
    assert names(tmp_path) == ["out", f"out/{MARK}", "out/parts", "out/parts/one"]
    assert json.loads((tmp_path / "out" / MARK).read_text()) == {"kind": "bundle", "files": ["parts/one"]}


@WAYS
@pytest.mark.parametrize("what", ["no mark", "a foreign file", "a foreign link", "another kind", "a broken mark"])
def test_what_others_wrote_stays(way, what, tmp_path):
    out = tmp_path / "out"
    write(way, out, "old", kind="model" if what == "another kind" else "bundle")
    if what == "no mark":
        (out / MARK).unlink()
    elif what == "a broken mark":
        (out / MARK).write_text('["parts/one"]')
    elif what == "a foreign file":
        (out / "parts" / "thesis.tex").write_text("years of work")
    elif what == "a foreign link":
        (out / "parts" / "thesis").symlink_to(tmp_path)
    before = names(tmp_path)
    with pytest.raises(InputError, match=r"overwrite=True: expected .* hyperofa wrote"):
        write(way, out, overwrite=True)
    assert names(tmp_path) == before
    assert (out / "parts" / "one").read_text() == "old"


@pytest.mark.parametrize("way", [new, resumed])
def test_a_file_that_came_meanwhile_stays(way, tmp_path):
    """Also in a folder that was free when the work began."""

    def work():
        with way(tmp_path / "out"):
            (tmp_path / "out").mkdir()
            (tmp_path / "out" / "thesis.tex").write_text("years of work")

    with pytest.raises(InputError, match="already exists"):
        work()
    assert (tmp_path / "out" / "thesis.tex").exists()


@WAYS
def test_the_old_folder_stays_until_the_new_one_is_whole(way, tmp_path):
    write(way, tmp_path / "out", "old")
    before = names(tmp_path)
    with pytest.raises(OSError, match="full"), way(tmp_path / "out", overwrite=True):
        raise OSError("the disk is full")
    assert names(tmp_path) == before
    assert (tmp_path / "out" / "parts" / "one").read_text() == "old"


def test_an_interrupted_folder_can_be_gone_on_with_or_replaced(tmp_path):
    write(kept, tmp_path / "out", "old")

    def interrupted():
        with kept(tmp_path / "out", overwrite=True) as folder:
            (folder / "checkpoint").mkdir()
            (folder / "checkpoint" / "last.ckpt").write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    with pytest.raises(InputError, match=r"expected an interrupted run in .*, found one with other settings"):
        write(kept, tmp_path / "out", key="1" * 64, resume=True)
    with kept(tmp_path / "out") as folder:
        assert (folder / "checkpoint" / "last.ckpt").read_text() == "half"
        assert any(path.name.startswith(".out.retired") for path in tmp_path.iterdir())
        (folder / "checkpoint" / "last.ckpt").unlink()
    assert names(tmp_path) == ["out", f"out/{MARK}", "out/checkpoint"]
    with pytest.raises(InputError, match=r"expected an interrupted run in .*, found none"):
        write(kept, tmp_path / "out", resume=True)


@WAYS
def test_inputs_are_not_replaced(way, tmp_path):
    write(way, tmp_path / "out", "old")
    for given in (tmp_path / "out", tmp_path / "out" / "parts" / "one", str(tmp_path / "out" / "parts")):
        with pytest.raises(InputError, match=r"output .*out: expected a folder apart from the input, found .* in it"):
            write(way, tmp_path / "out", overwrite=True, inputs=[None, "bert-base-uncased", given])
    (tmp_path / "link").symlink_to(tmp_path / "out" / "parts" / "one")
    with pytest.raises(InputError, match="apart from the input"):
        write(way, tmp_path / "out", overwrite=True, inputs=[tmp_path / "link"])
    assert (tmp_path / "out" / "parts" / "one").read_text() == "old"


def test_a_folder_within_an_input_would_change_it(tmp_path):
    (tmp_path / "vectors").mkdir()
    with pytest.raises(InputError, match=r"expected a folder apart from the input, found it in .*vectors"):
        write(resumed, tmp_path / "vectors" / "bundle", inputs=[tmp_path / "vectors"])


@WAYS
def test_names_are_no_patterns(way, tmp_path):
    """`[ab]` once removed what was being written to `a`."""
    others = [tmp_path / ".a.partial-0123456789abcdef", tmp_path / ".a.retired-abcdefgh"]
    others += [tmp_path / ".a.b.partial-0123456789abcdef", tmp_path / ".[ab].partial-x.partial-0123456789abcdef"]
    for other in others:
        other.mkdir()
    for name in ("[ab]", "*", "[ab].*"):
        write(way, tmp_path / name, "old")
        write(way, tmp_path / name, overwrite=True)
    assert all(other.exists() for other in others)


@pytest.mark.parametrize("way", [resumed, kept])
def test_what_a_kill_left_half_written_is_no_part_of_the_whole(way, tmp_path):
    def die(write):
        with way(tmp_path / "a") as folder, write(folder / "one.json") as partial:
            partial.touch()
            os.kill(os.getpid(), signal.SIGKILL)

    (tmp_path / "there").mkdir()
    for write in (new_folder, whole_file):
        assert forked.wait(forked.start(lambda write=write: die(write), tmp_path / "there")) == -signal.SIGKILL
    with way(tmp_path / "a") as folder:
        assert len(names(folder)) == 2 + (way is kept)
        (folder / ".tmp1m1iog").touch()  # as safetensors leaves it
        write_json(folder / "one.json", 1)
    assert names(tmp_path / "a") == [MARK, "one.json"]
    assert json.loads((tmp_path / "a" / MARK).read_text())["files"] == ["one.json"]


def test_what_another_key_left_is_removed(tmp_path):
    (tmp_path / ".out.partial-0123456789abcdef").mkdir()
    write(resumed, tmp_path / "out")
    assert names(tmp_path) == ["out", f"out/{MARK}", "out/parts", "out/parts/one"]


@WAYS
def test_places_that_cannot_be_replaced(way, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nowhere").symlink_to(tmp_path / "absent")
    (tmp_path / "file").write_text("mine")
    places = {
        ".": r"\.: expected a folder to make, found the current one",
        str(tmp_path): "found the current one",
        "/": "expected a folder to make, found a mount point",
        "nowhere": "nowhere: expected a folder to write to, found a link to nothing",
        "file": "file: expected a folder to write to, found a file",
    }
    for place, message in places.items():
        with pytest.raises(InputError, match=message):
            write(way, place, overwrite=True)
    assert (tmp_path / "file").read_text() == "mine"


@WAYS
def test_a_link_to_a_folder_stays_a_link(way, tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    write(way, tmp_path / "link", "old")
    write(way, tmp_path / "link", overwrite=True)
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real" / "parts" / "one").read_text() == "new"


@WAYS
def test_a_refused_command_leaves_no_parents(way, tmp_path):
    with pytest.raises(ValueError, match="no such model"), way(tmp_path / "new" / "folders" / "out"):
        raise ValueError("no such model")
    assert list(tmp_path.iterdir()) == []


@WAYS
def test_the_longest_name(way, tmp_path):
    for name in ("x" * 255, "ü" * 127):
        write(way, tmp_path / name, "old")
        write(way, tmp_path / name, overwrite=True)
        assert (tmp_path / name / "parts" / "one").read_text() == "new"


@WAYS
def test_files_have_the_mode_of_any_new_file(way, tmp_path):
    """safetensors writes 0600."""
    old = os.umask(0o027)
    try:
        with way(tmp_path / "out") as folder:
            (folder / "model.safetensors").write_text("")
            (folder / "model.safetensors").chmod(0o600)
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "out" / "model.safetensors").stat().st_mode) == 0o640


def test_unfinished_work_is_no_new_input(tmp_path):
    """A job that writes into a folder that it reads finds its own unfinished work again."""
    (tmp_path / "a.vec").write_text("a")
    before = fingerprint(tmp_path)
    (tmp_path / ".bundle.partial-1").mkdir()
    (tmp_path / ".bundle.partial-1" / "part").write_text("b")
    (tmp_path / ".bundle.lock").touch()
    assert fingerprint(tmp_path) == before
    (tmp_path / "b.vec").write_text("b")
    assert fingerprint(tmp_path) != before
