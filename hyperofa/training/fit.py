"""Train a hypernetwork: data, module, trainer and callbacks with the settings that are recommended."""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field, is_dataclass
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning import Callback, Trainer
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint, ProgressBar, TQDMProgressBar
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.utilities.seed import isolate_rng

from hyperofa.bundle.bundle import Bundle
from hyperofa.errors import InputError, did_you_mean
from hyperofa.nets.net import Net
from hyperofa.nets.registry import NETS
from hyperofa.runtime.folders import fingerprint, new_folder, resumed_folder
from hyperofa.runtime.hashing import sha256_text
from hyperofa.runtime.processes import bar_hidden
from hyperofa.runtime.scratch import scratch_folder
from hyperofa.runtime.versions import versions
from hyperofa.training.curves import CurvePlot
from hyperofa.training.datamodule import HyperDataModule
from hyperofa.training.divergence import StopDiverged
from hyperofa.training.hypernetwork import Hypernetwork, file_names, split_options
from hyperofa.training.module import HyperModule
from hyperofa.training.resumption import Resumption, is_unfinished
from hyperofa.training.trainers import hush_lightning, refusals_told

BEST = "best.ckpt"
_RUN, _STATES = "run", "checkpoints"  # folders of a run that is not finished, and what it can be gone on with


@dataclass(frozen=True)
class Recipe:
    """Recommended settings, those of a file in `configs/`.

    Attributes:
        monitor: metric that chooses the checkpoint, the higher the better.
        patience: validations without a better one after which training ends.
        trainer: of Lightning's Trainer.
        options: of the data and the module.
    """

    monitor: str
    patience: int
    trainer: Mapping[str, Any]
    options: Mapping[str, Any] = field(default_factory=dict)


_TRAINER = {"accelerator": "auto", "devices": 1, "gradient_clip_val": 1.0}
ON_TEXT = Recipe("val/score", 4, {**_TRAINER, "max_epochs": 6, "log_every_n_steps": 10}, {"steps": 50})
"""`configs/fit.yaml`."""
ON_TOKENS = Recipe(
    "val/mrr",
    10,
    {**_TRAINER, "max_epochs": 60},
    {"streams": "tokens", "batch_size": 256, "contrastive_weight": 0.5},
)
"""`configs/tokens.yaml`, whose net is an MLP."""


def fit(
    bundle: Bundle | str | Path,
    text: str | Path | Sequence[str | Path] | None = None,
    *,
    net: str | Callable[[int, int], Net] = "SourceAttention",
    trainer: Mapping[str, Any] | Trainer | None = None,
    output: str | Path | None = None,
    overwrite: bool = False,
    seed: int = 0,
    monitor: str | None = None,
    patience: int | None = None,
    **options: Any,
) -> Hypernetwork:
    """Train a hypernetwork on a bundle, in this process, with the settings that are recommended.

    With an `output`, a training that was killed goes on where it was when it is called again with the same arguments,
    if they are plain data but for the net. `hyperofa fit` trains on several devices and machines too.

    Args:
        bundle: what `prepare` made, or its folder.
        text: files of sentences in a language that the source model knows, one a line. Without any, source tokens are
            all that it learns from: quicker, and much weaker.
        net: name of a class in `hyperofa.nets`, or what makes a net of the word width and the coordinate width.
        trainer: options of Lightning's Trainer over the recommended ones, such as `{"max_epochs": 3}`; or a Trainer,
            with callbacks of its own.
        output: folder for the checkpoint `best.ckpt`, `metrics.csv` and `curves.png`; nothing is kept if not given.
        overwrite: replace the folder of an earlier run.
        seed: of what is held out, drawn and initialised.
        monitor: metric that chooses the checkpoint, the higher the better: `val/score` with text, `val/mrr` without, if
            not given.
        patience: validations without a better one after which training ends, 0 for never; 4 with text, 10 without.
        options: of `HyperDataModule` and `HyperModule`: what `hyperofa fit` calls `--data.…` and `--model.…`.

    Returns:
        The hypernetwork at its best validation.

    Raises:
        InputError: an input is missing or does not serve.

    Example:
        >>> import hyperofa
        >>> few = {"max_epochs": 1, "log_every_n_steps": 1, "enable_progress_bar": False}
        >>> hypernetwork = hyperofa.fit("bundle", net="MLP", trainer=few)
        >>> 0 <= hypernetwork.test("bundle")["test/mrr"] <= 1
        True
    """
    opened = Bundle.load(bundle)
    files = file_names(text)
    recipe = ON_TEXT if files else ON_TOKENS
    of_data, of_module = split_options({**recipe.options, "seed": seed, **options})
    hush_lightning()
    with isolate_rng():
        lightning.seed_everything(seed, verbose=False)
        data = HyperDataModule(opened, files, **of_data)
        module = HyperModule(data.word_dim, data.coordinate_dim, _net_maker(net), **of_module)
        own_logs = isinstance(trainer, Trainer) or "logger" in (trainer or {})
        settings = [of_data, of_module, None if own_logs else trainer, monitor, patience, seed]
        key = None if output is None or own_logs else _plain_key(settings, module.net, data)
        with _run_folder(output, overwrite, key, [opened.path, *files]) as folder:
            if isinstance(trainer, Trainer):
                runner = trainer
            else:
                runner = _make_trainer(
                    folder, recipe, monitor, patience, trainer, [] if key is None else [Resumption()]
                )
            if runner.world_size > 1:
                raise InputError(
                    f"trainer: expected one process, found {runner.world_size}; train on several with `hyperofa fit`"
                )
            best = train(runner, module, data, key) or folder / BEST
            if not Path(best).is_file():  # a Trainer without a checkpoint
                runner.save_checkpoint(best, weights_only=True)
            return Hypernetwork.load(best, opened)


def run_key(settings: str, data: HyperDataModule, *given: str) -> str:
    """What a run is known by: its settings, and the state of the files that it reads.

    Args:
        settings: all that decides it beside these files.
        data: what it is trained on.
        given: further files that it begins from.
    """
    return sha256_text(settings, fingerprint(*data.files, *given))


def train(
    trainer: Trainer,
    module: HyperModule,
    data: HyperDataModule,
    key: str | None,
    checkpoint: str | None = None,
    **options: Any,
) -> str | None:
    """Train, going on with a run that was killed: the core of `fit` and of `hyperofa fit`.

    Args:
        trainer: it goes on if it has a `Resumption` and logs to files.
        module: what is trained.
        data: what it is trained on.
        key: of the run, see `run_key`; `None` to begin in any case.
        checkpoint: to begin from, if there is nothing to go on with.
        options: of `Trainer.fit`.

    Returns:
        The best checkpoint, `None` where the trainer chooses none.

    Raises:
        InputError: the folder has another run.
    """
    going_on = [each for each in trainer.callbacks if isinstance(each, Resumption)]  # type: ignore[attr-defined]
    if going_on and key is not None and isinstance(trainer.logger, CSVLogger):
        checkpoint = going_on[0].begin(trainer.logger, key) or checkpoint
    trainer.fit(module, datamodule=data, ckpt_path=checkpoint, **options)
    return getattr(trainer.checkpoint_callback, "best_model_path", "") or None


def _plain_key(settings: Any, net: Net, data: HyperDataModule) -> str | None:
    """What another process would know the same run by; `None` where there are objects that only this one knows.

    Args:
        settings: of data, module and trainer.
        net: before training; its weights count, whatever made them.
        data: what it is trained on.
    """
    weights = hashlib.sha256()
    for tensor in net.state_dict().values():
        weights.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    try:
        made = [settings, net.spec(), weights.hexdigest(), versions()]
        return run_key(json.dumps(made, sort_keys=True, default=_plain), data)
    except TypeError:
        return None


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    if isinstance(value, Path):
        return str(value)
    raise TypeError


@contextmanager
def _run_folder(
    output: str | Path | None, overwrite: bool, key: str | None, inputs: list[str | Path]
) -> Iterator[Path]:
    """The folder of a run, kept when all has gone well; a temporary one if none is asked for.

    Args:
        output: where it is to be.
        overwrite: whether it may replace an earlier run.
        key: of the run; one that was killed leaves its folder to the next with the same. `None` if it leaves nothing.
        inputs: what the run reads.
    """
    if output is None:
        with scratch_folder("hyperofa-fit-") as scratch:
            yield scratch
        return
    with ExitStack() as stack:
        if key is None:
            folder = stack.enter_context(new_folder(output, overwrite, kind="run", inputs=inputs))
        else:
            folder = stack.enter_context(resumed_folder(output, key, overwrite, kind="run", inputs=inputs))
        run = folder / _RUN
        if run.is_dir() and not is_unfinished(run):  # killed when all was done
            shutil.rmtree(run)
        run.mkdir(exist_ok=True)
        yield run
        for path in sorted(run.iterdir()):
            if path.name != _STATES:
                path.replace(folder / path.name)
        shutil.rmtree(run)


def _make_trainer(
    folder: Path,
    recipe: Recipe,
    monitor: str | None,
    patience: int | None,
    given: Mapping[str, Any] | None,
    further: Sequence[Callback],
) -> Trainer:
    """A trainer with what is recommended, and over it what is given; callbacks are added to the recommended ones."""
    settings = {**recipe.trainer, "enable_model_summary": False, "use_distributed_sampler": False, **(given or {})}
    own = settings.pop("callbacks", None) or []
    own = [own] if isinstance(own, Callback) else list(own)
    monitor = recipe.monitor if monitor is None else monitor
    patience = recipe.patience if patience is None else patience
    # Weights alone: anything else in a checkpoint holds the path of its folder, and no two are alike.
    callbacks: list[Callback] = [
        ModelCheckpoint(folder, Path(BEST).stem, monitor=monitor, mode="max", save_weights_only=True),
        CurvePlot(),
        StopDiverged(),
        *([EarlyStopping(monitor, mode="max", patience=patience)] if patience else []),
        *further,
        *own,
    ]
    settings.setdefault("enable_progress_bar", not bar_hidden())
    if settings["enable_progress_bar"] and not any(isinstance(each, ProgressBar) for each in own):
        callbacks.append(TQDMProgressBar())  # in a shell and in a notebook alike
    with refusals_told():
        return Trainer(callbacks=callbacks, **{"logger": CSVLogger(folder.parent, folder.name, ""), **settings})


def _net_maker(net: str | Callable[[int, int], Net]) -> Callable[[int, int], Net]:
    if not isinstance(net, str):
        return net
    if net not in NETS:
        known = ", ".join(NETS)
        raise InputError(
            f"net: expected one of {known}, or a callable that makes a net; found {net!r}{did_you_mean(net, NETS)}"
        )
    return NETS[net]
