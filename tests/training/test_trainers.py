"""What a Trainer refuses is the user's mistake, wherever one is made."""

import logging
import warnings

import pytest
from transformers.utils import logging as transformers_logging

from hyperofa.errors import InputError
from hyperofa.pretraining.settings import TrainerOptions, Training
from hyperofa.pretraining.trainer import make_trainer
from hyperofa.training.trainers import hush_lightning, quiet, refusals_told


@pytest.mark.parametrize("error", [OverflowError("too large"), ImportError("no such"), RuntimeError("nothing there")])
def test_refusals(error):
    with pytest.raises(InputError, match=f"trainer: {error}"), refusals_told():
        raise error


def test_what_is_told_already_stays_as_it_is():
    with pytest.raises(InputError, match=r"^seed: expected 1, found 2$"), refusals_told():
        raise InputError("--seed: expected 1, found 2")


def test_a_number_that_no_machine_has_room_for():
    with pytest.raises(InputError, match="trainer: cannot fit"):
        make_trainer(Training(steps=1), TrainerOptions("cpu", devices=10**22))


@pytest.mark.parametrize(("fast", "asked", "given"), [
    (True, "auto", "bf16-mixed"), (False, "auto", "32-true"), (True, "32-true", "32-true"),
])  # fmt: skip
def test_precision_follows_the_machine_where_it_may(fast, asked, given, monkeypatch):
    monkeypatch.setattr("hyperofa.pretraining.trainer.has_fast_bfloat16", lambda device: fast and device.type == "cpu")
    with quiet():
        assert make_trainer(Training(steps=1), TrainerOptions("cpu", precision=asked)).precision == given


def test_what_no_user_can_change_is_not_told():
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        hush_lightning()
        for number, category in enumerate((DeprecationWarning, FutureWarning, UserWarning)):
            warnings.warn_explicit("of Lightning", category, "trainer.py", number, module="lightning.pytorch.trainer")
            warnings.warn_explicit("of the user", category, "mine.py", number, module="mine")
    assert [str(each.message) for each in said] == ["of the user", "of the user", "of Lightning", "of the user"]


def test_quiet():
    logger = logging.getLogger("lightning.pytorch")
    before = logger.level, transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    with quiet():
        assert logger.level == logging.ERROR
        assert not transformers_logging.is_progress_bar_enabled()
    assert before == (
        logger.level,
        transformers_logging.get_verbosity(),
        transformers_logging.is_progress_bar_enabled(),
    )
