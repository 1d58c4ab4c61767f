import time

import pytest

from hyperofa.runtime.files import new_file
from hyperofa.runtime.folders import new_folder
from hyperofa.runtime.scratch import scratch_folder
from tests import forked
from tests.conftest import contents


@pytest.fixture
def killed(tmp_path):
    """Kills a process while it works in a temporary folder."""
    (tmp_path / "in").mkdir()

    def kill(making):
        def work():
            with making() as made:
                (made / "part" if made.is_dir() else made).write_text("half")
                (tmp_path / "in" / "begun").touch()
                time.sleep(forked.PATIENCE)

        child = forked.start(work, tmp_path / "in")
        forked.kill_when((tmp_path / "in" / "begun").exists, child, tmp_path / "in")
        (tmp_path / "in" / "begun").unlink()
        return contents(tmp_path / "in")

    return kill


@pytest.mark.parametrize("making", [
    lambda: scratch_folder("mine-", "."),
    lambda: new_folder("out", kind="model"),
    lambda: new_file("out.vec"),
], ids=["scratch", "folder", "file"])  # fmt: skip
def test_the_next_one_removes_what_a_kill_left(making, killed, tmp_path, monkeypatch):
    assert len(killed(making)) == 1
    monkeypatch.chdir(tmp_path / "in")
    with making() as made:
        assert made.parent.is_dir()
        assert len(contents(tmp_path / "in")) == 1
        (made / "part" if made.is_dir() else made).write_text("whole")
    assert [name for name in contents(tmp_path / "in") if not name.startswith("out")] == []


def test_what_is_held_stays(tmp_path):
    (tmp_path / "mine-of-others").mkdir()
    with scratch_folder("mine-", tmp_path) as one, scratch_folder("mine-", tmp_path) as other:
        assert contents(tmp_path) == sorted(["mine-of-others", one.name, other.name])
    assert contents(tmp_path) == ["mine-of-others"]


def test_a_file_that_is_not_written_leaves_no_folders(tmp_path):
    with pytest.raises(ValueError, match="no"), new_file(tmp_path / "a" / "b" / "out.vec"):
        raise ValueError("no")
    assert contents(tmp_path) == []
