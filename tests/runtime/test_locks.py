"""Locks: one holder at a time, and every lock a file of its own."""

from threading import Event, Thread

import pytest

from hyperofa.errors import InputError
from hyperofa.runtime.folders import resumed_folder
from hyperofa.runtime.locks import locked, only_holder


def test_a_lock_waits_for_its_holder(tmp_path):
    entered = Event()

    def enter():
        with locked(tmp_path / "bundle"):
            entered.set()

    with locked(tmp_path / "bundle"):
        with resumed_folder(tmp_path / "bundle", "0"):  # by the command that makes it, within the work on it
            pass
        other = Thread(target=enter, daemon=True)
        other.start()
        assert not entered.wait(0.3)
    assert entered.wait(30)
    other.join()


def test_who_comes_second_is_refused_until_the_first_is_gone(tmp_path):
    refused = []

    def come(text):
        try:
            with only_holder(tmp_path / ".lock", "held by another"):
                pass
        except InputError as error:
            refused.append(f"{text}: {error}")

    with only_holder(tmp_path / ".lock", "held by another"):
        other = Thread(target=come, args=["first"])
        other.start()
        other.join()
        assert (tmp_path / ".lock").exists()
    come("second")
    assert refused == ["first: held by another"]
    with pytest.raises(KeyError), only_holder(tmp_path / ".lock", "held by another"):
        raise KeyError
    come("third")
    assert len(refused) == 1
