"""What a new token means to the net while it learns: its nearest source tokens, for loggers that show tables."""

from copy import deepcopy

import numpy as np
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import CSVLogger, Logger

from hyperofa.bundle.bundle import Bundle
from hyperofa.nets.net import Net
from hyperofa.training.hypernetwork import Hypernetwork
from hyperofa.training.predict_tokens import predict_tokens
from hyperofa.vectors.centring import unit_rows

TITLE = "nearest source tokens"


class TokenTable(Callback):
    """Shows, after each validation, the nearest source tokens of some target tokens in TensorBoard or W&B.

    A CSV file has no tables, so that with the default logger nothing is computed.

    Args:
        tokens: how many, evenly spread over the vocabulary among those that have words and are not in the overlap.
        nearest: how many source tokens of each, by the cosine of their coordinates.
    """

    def __init__(self, tokens: int = 24, nearest: int = 5) -> None:
        self.tokens, self.nearest = tokens, nearest

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Show it, on the first process."""
        loggers = [logger for logger in trainer.loggers if _shows_tables(logger)]
        if not loggers or not trainer.is_global_zero or trainer.sanity_checking:
            return
        data = trainer.datamodule  # type: ignore[attr-defined]
        net: Net = deepcopy(pl_module.net)  # type: ignore[assignment]  # as predicting may move it to a GPU
        trained = Hypernetwork(net.eval(), tuple(data.copied), data.max_words, data.words)
        rows = nearest_source_tokens(trained, data.bundle, self.tokens, self.nearest)
        for logger in loggers:
            _show(logger, rows, trainer.global_step)


def nearest_source_tokens(trained: Hypernetwork, bundle: Bundle, tokens: int, nearest: int) -> list[list[str]]:
    """Target tokens, and the source tokens that lie nearest to what the net predicts for them.

    Args:
        trained: the net.
        bundle: its inputs.
        tokens: how many, at most.
        nearest: how many source tokens of each.

    Returns:
        Of each target token its name, then those of source tokens with their cosines, the nearest first.
    """
    new = np.setdiff1d(np.flatnonzero(bundle.target.covered), bundle.overlap.target_ids)
    ids = new[np.linspace(0, len(new) - 1, min(tokens, len(new))).astype(int)] if len(new) else new
    if not len(ids):
        return []
    predicted = predict_tokens(trained, bundle, "target", ids, np.flatnonzero(bundle.source.covered))
    cosines = unit_rows(predicted)[0] @ unit_rows(bundle.coordinates)[0].T
    near = np.argsort(-cosines, axis=1, kind="stable")[:, :nearest]
    names = bundle.tokenizer("target").convert_ids_to_tokens(ids.tolist())
    sources = bundle.tokenizer("source").convert_ids_to_tokens(list(range(bundle.meta.source_tokens)))
    return [
        [str(name), *(f"{sources[token]} {cosines[row, token]:.2f}" for token in near[row])]
        for row, name in enumerate(names)
    ]


def _shows_tables(logger: Logger) -> bool:
    return not isinstance(logger, CSVLogger) and (
        hasattr(logger, "log_table") or hasattr(getattr(logger, "experiment", None), "add_text")
    )


def _show(logger: Logger, rows: list[list[str]], step: int) -> None:
    heads = ["token", *(f"{place}." for place in range(1, max(map(len, rows), default=1)))]
    if hasattr(logger, "log_table"):
        logger.log_table(TITLE, columns=heads, data=rows, step=step)
        return
    cells = [heads, ["---"] * len(heads), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    table = "\n".join(f"| {' | '.join(row)} |" for row in cells)
    logger.experiment.add_text(TITLE, table, step)  # type: ignore[attr-defined]
