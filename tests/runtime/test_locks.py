"""Locks: one holder at a time, whoever else opens the file."""

from threading import Event, Thread

from hyperofa.runtime.locks import locked, try_lock


def test_a_lock_stays_when_another_of_its_file_comes_and_goes(tmp_path):
    path, entered = tmp_path / "bundle", Event()

    def enter():
        with locked(path):
            entered.set()

    with locked(path):
        with (tmp_path / ".bundle.lock").open("w") as file:
            assert try_lock(file)
        other = Thread(target=enter, daemon=True)
        other.start()
        assert not entered.wait(0.3)
    assert entered.wait(30)
    other.join()
