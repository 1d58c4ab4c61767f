"""The jobs of the stages that initialise tokens: OFA, the nets, their checkpoints, export. See `data_jobs`."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from data_jobs import source_rows
from inputs import Inputs, World
from jobs import Job, Seconds, now, sampled

if TYPE_CHECKING:
    from hyperofa.bundle.bundle import Bundle, Side
    from hyperofa.nets.net import Net

FIT = Path(__file__).parent.parent / "configs" / "fit.yaml"
BATCH = 256
BATCHES = 41  # of the default net, the first to warm up
PLAIN_QUERIES = 2_048  # that OFA is timed on, at most
EXPORTED = 20_000  # tokens that the plain export is timed on, at most


def _bundle(inputs: Inputs) -> "Bundle":
    from hyperofa.bundle.bundle import Bundle

    return Bundle.load(inputs.bundle)


# OFA.


def ofa(inputs: Inputs) -> Job:
    import scipy.sparse as sp

    from hyperofa.methods.baselines import InitInputs, ofa

    bundle = _bundle(inputs)
    keys, queries = bundle.pooled("source"), bundle.pooled("target")
    usable, wanted, compared = bundle.source.covered, bundle.target.covered, _compared(bundle)
    inputs = InitInputs(bundle.coordinates, keys, usable, queries, wanted, sp.csr_matrix((len(queries), len(keys))))
    return Job(
        lambda: ofa(inputs),
        len(queries),
        check=lambda rows: {"rows": rows.coordinates[compared]},
        searched=2.0 * int(wanted.sum()) * int(usable.sum()) * keys.shape[1],
        traffic=keys.nbytes + queries.nbytes + 4 * len(queries) * bundle.meta.coordinate_dim,
    )


def ofa_plain(inputs: Inputs) -> Job:
    import plain

    bundle = _bundle(inputs)
    keys, queries, coordinates = (
        np.array(array) for array in (bundle.pooled("source"), bundle.pooled("target"), bundle.coordinates)
    )
    some, compared = sampled(len(queries), PLAIN_QUERIES), _compared(bundle)

    def check(rows: np.ndarray) -> dict[str, np.ndarray]:
        units = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (queries[compared], keys[bundle.source.covered])]
        cosines = np.partition(units[0] @ units[1].T, (-11, -10), axis=1)
        decided = cosines[:, -10] - cosines[:, -11] > 1e-5  # no tie for the last place
        return {"rows": rows[np.searchsorted(some, compared)], "decided": decided}

    return Job(lambda: plain.ofa(queries[some], keys, coordinates), len(queries), len(some) / len(queries), check=check)


def _compared(bundle: "Bundle") -> np.ndarray:
    """Target tokens whose rows are compared: those with words that the plain way is timed on."""
    covered = np.flatnonzero(bundle.target.covered)
    return np.intersect1d(sampled(bundle.meta.target_tokens, PLAIN_QUERIES), covered)


# An epoch on source tokens.


def epoch(inputs: Inputs) -> Job:
    import lightning
    from torch.utils.flop_counter import FlopCounterMode

    from hyperofa.training.datamodule import HyperDataModule
    from hyperofa.training.module import HyperModule

    batch = _batch(_bundle(inputs))
    data = HyperDataModule(str(inputs.bundle), streams="tokens", batch_size=batch)
    module = HyperModule(data.word_dim, data.coordinate_dim, net=_default_net())
    tokens = len(data.bundle.split["train"])
    marks: list[tuple[int, Seconds]] = []
    counter = FlopCounterMode(display=False)

    class Marks(lightning.Callback):
        def on_train_batch_start(self, *_: Any) -> None:
            if not marks:
                counter.__enter__()

        def on_train_batch_end(self, *arguments: Any) -> None:
            if not marks:
                counter.__exit__(None, None, None)
            marks.append((len(arguments[3]["tokens"].self_index), now()))

    quiet: dict[str, Any] = dict.fromkeys(("logger", "enable_checkpointing", "enable_model_summary"), False)
    trainer = lightning.Trainer(
        accelerator="cpu",
        max_epochs=1,
        limit_train_batches=min(BATCHES, -(-tokens // batch)),
        limit_val_batches=0,
        gradient_clip_val=1.0,
        use_distributed_sampler=False,
        enable_progress_bar=False,
        callbacks=[Marks()],
        **quiet,
    )

    def run() -> Seconds:
        start = now()
        trainer.fit(module, datamodule=data)
        return marks[0][1] - start

    return Job(
        run,
        tokens,
        BATCHES * batch / tokens,
        lambda _: _at_the_pace(marks, tokens),
        lambda before: {"setup_s": before[0], "operations": counter.get_total_flops() / marks[0][0] * tokens},
    )


def epoch_plain(inputs: Inputs) -> Job:
    import plain
    import torch

    bundle = _bundle(inputs)
    tokens, coordinates = bundle.split["train"], torch.from_numpy(np.array(bundle.coordinates))

    def run() -> list[tuple[int, Seconds]]:
        batches = ((sets, coordinates[ids]) for ids, sets in _plain_batches(bundle, "source", tokens))
        return [(count, now()) for count in plain.fit(_bilstm(inputs), batches)]

    return Job(run, len(tokens), 0.0, lambda marks: _at_the_pace(marks, len(tokens)))


def _batch(bundle: "Bundle") -> int:
    """Tokens a batch: 256, but at least four batches."""
    return min(BATCH, len(bundle.split["train"]) // 4)


def _at_the_pace(marks: list[tuple[int, Seconds]], tokens: int) -> Seconds:
    """Seconds of so many tokens at the pace of all batches but the first."""
    return (marks[-1][1] - marks[0][1]) * tokens / sum(count for count, _ in marks[1:])


def _default_net() -> "Callable[[int, int], Net]":
    """The net of `configs/fit.yaml`, still without its widths."""
    import yaml

    from hyperofa import nets

    chosen = yaml.safe_load(FIT.read_text())["model"]["net"]
    return partial(getattr(nets, chosen["class_path"].rpartition(".")[2]), **chosen.get("init_args", {}))


def _bilstm(inputs: Inputs) -> Any:
    """The net of `configs/paper/xlmr-100.yaml`."""
    from hyperofa.nets.bilstm import BiLSTM

    size = inputs.size
    return BiLSTM(size.word_dim, size.coordinates, hidden_dim=size.hidden, num_layers=4, dropout=0.4)


def _plain_batches(bundle: "Bundle", side: "Side", tokens: np.ndarray) -> Iterator[tuple[np.ndarray, Any]]:
    """A small batch to warm up; then, of a published group of 40 batches by number of words, four evenly spread."""
    import plain

    matches, vectors, batch = bundle.matches(side), bundle.words.vectors, _batch(bundle)
    drawn = np.random.default_rng(0).permutation(tokens)[: 40 * batch]
    group = np.array_split(drawn[np.argsort(matches.counts[drawn], kind="stable")], max(4, len(drawn) // batch))
    indices = [(2 * quarter + 1) * len(group) // 8 for quarter in range(4)]
    for ids in (drawn[:8], *(group[place] for place in indices)):
        yield ids, plain.word_sets(ids, matches.indptr, matches.words, vectors)


# Prediction.


def predict(inputs: Inputs) -> Job:
    from torch.utils.flop_counter import FlopCounterMode

    from hyperofa.export.prediction import predict
    from hyperofa.training.hypernetwork import Hypernetwork

    bundle = _bundle(inputs)
    tokens, keys = int(bundle.target.covered.sum()), int(bundle.source.covered.sum())
    net = _default_net()(bundle.meta.word_dim, bundle.meta.coordinate_dim).eval()
    trained = Hypernetwork(net, ("role", "symbol"), 32, "heaviest", bundle.meta.training_fingerprint)
    counter = FlopCounterMode(display=False)

    def run() -> None:
        with counter:
            predict(trained, bundle)

    def check(_: Any) -> dict[str, Any]:
        counts = {name: sum(count.values()) for name, count in counter.get_flop_counts().items()}
        return {"operations": sum(count for name, count in counts.items() if "." not in name and name != "Global")}

    searched = 0.0 if net.looks_at(keys) is None else 2.0 * tokens * keys * net.word_dim
    return Job(run, tokens, check=check, searched=searched)


def predict_plain(inputs: Inputs) -> Job:
    import plain

    bundle = _bundle(inputs)
    tokens = np.flatnonzero(bundle.target.covered)

    def run() -> list[tuple[int, Seconds]]:
        batches = (sets for _, sets in _plain_batches(bundle, "target", tokens))
        return [(count, now()) for count in plain.predict(_bilstm(inputs), batches)]

    return Job(run, len(tokens), 0.0, lambda marks: _at_the_pace(marks, len(tokens)))


# What is written.


def checkpoint(inputs: Inputs) -> Job:
    """Two steps with the default config, and the sizes of the files it leaves."""
    import torch

    from hyperofa.cli import main

    folder = inputs.scratch("fitted")
    flags = {
        "data.bundle": inputs.bundle,
        "data.text": inputs.text,
        "data.text_languages": World(inputs.size, inputs.corpus).codes[0],
        "data.steps": 2,
        "data.sentences": 8,
        "data.views.translated": 8,
        "trainer.max_epochs": 1,
        "trainer.log_every_n_steps": 1,
        "trainer.accelerator": "cpu",
        "trainer.enable_progress_bar": "false",
        "trainer.logger.init_args.save_dir": folder,
    }
    words = [word for name, value in flags.items() for word in (f"--{name}", str(value))]

    def check(_: Any) -> dict[str, Any]:
        files = {path.stem: path for path in folder.rglob("*.ckpt")}
        state = torch.load(files["best"], weights_only=True)["state_dict"]
        net = sum(value.nbytes for name, value in state.items() if name.startswith("net."))
        best, last = (files[name].stat().st_size / net for name in ("best", "last"))
        return {"checkpoint_ratio": best, "resumable_ratio": last, "net_bytes": net}

    return Job(lambda: main(["fit", "--config", str(FIT), *words]), 1, check=check)


def export(inputs: Inputs) -> Job:
    """All but the net: rows are copied or made of source tokens, and the model is written with its provenance."""
    from hyperofa.export.export import export

    output, size = inputs.scratch("exported"), inputs.size
    return Job(
        lambda: export(inputs.bundle, "subtokens", output),
        size.target_tokens,
        check=lambda _: {"rows": _exported_rows(inputs, output)},
        traffic=4 * size.width * (size.source_tokens + 2 * size.target_tokens),
    )


def export_plain(inputs: Inputs) -> Job:
    import plain

    from hyperofa.models.loading import load_model
    from hyperofa.tokens.canonical import load_tokenizer

    source, target = load_tokenizer(inputs.model), load_tokenizer(inputs.target)
    output, tokens = inputs.scratch("exported"), sampled(inputs.size.target_tokens, EXPORTED)
    names = target.convert_ids_to_tokens(tokens.tolist())

    def run() -> Seconds:
        """Seconds of the whole, the loop over tokens stretched to all of them."""
        marks = [now()]
        model, sources = load_model(inputs.model), plain.texts(source)
        marks.append(now())
        embeddings = model.get_input_embeddings().weight.detach().numpy()
        rows = plain.subtoken_rows(names, embeddings, sources, source)
        marks.append(now())
        plain.write_model(model, rows, len(target), target, output)
        marks.append(now())
        loading, loop, writing = np.diff(marks, axis=0)
        return loading + loop * len(target) / len(tokens) + writing

    def check(_: Any) -> dict[str, Any]:
        known, rows = source.get_vocab(), source_rows(inputs)
        return {
            "copied": np.array([name in known for name in names]),
            "rows": rows[[known.get(name, 0) for name in names]],
        }

    return Job(run, len(target), len(tokens) / len(target), lambda seconds: seconds, check)


def _exported_rows(inputs: Inputs, folder: Path) -> np.ndarray:
    from safetensors import safe_open

    with safe_open(folder / "model.safetensors", "np") as file:
        rows = file.get_tensor("roberta.embeddings.word_embeddings.weight")
    return rows[sampled(inputs.size.target_tokens, EXPORTED)]
