"""Lightning's Trainer as a user meets it: what it refuses, and what it says of itself."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from lightning.pytorch.utilities import rank_zero
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from transformers.utils import logging as transformers_logging

from hyperofa.errors import InputError

_REFUSALS = (TypeError, ValueError, OverflowError, RuntimeError, ImportError, MisconfigurationException)


@contextmanager
def refusals_told() -> Iterator[None]:
    """Within this block, which makes a Trainer, what it refuses is the user's mistake.

    Raises:
        InputError: it refused a setting.
    """
    try:
        yield
    except InputError:
        raise
    except _REFUSALS as error:
        raise InputError(f"--trainer: {error}") from None


def hush_lightning() -> None:
    """Keep back what Lightning says of other products, of its own future, and of metrics as if they were not synced."""
    for category in (DeprecationWarning, FutureWarning):
        warnings.filterwarnings("ignore", category=category, module=r"lightning\.")
    logging.getLogger(rank_zero.__name__).addFilter(_is_no_advertisement)
    for message in (r"Starting from v1\.9\.0, `tensorboardX`", r"It is recommended to use `self\.log\(.*sync_dist"):
        warnings.filterwarnings("ignore", message=message)


def _is_no_advertisement(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith("💡")


@contextmanager
def quiet() -> Iterator[None]:
    """Keep back what Lightning and transformers say of themselves; afterwards they speak as before."""
    logger = logging.getLogger("lightning.pytorch")
    level, verbosity = logger.level, transformers_logging.get_verbosity()
    bars = transformers_logging.is_progress_bar_enabled()
    logger.setLevel(logging.ERROR)
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"lightning\.")
            yield
    finally:
        logger.setLevel(level)
        transformers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()
