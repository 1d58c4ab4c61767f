"""Measure nets on the device at hand: `python benchmarks/device.py OUTPUT [--nets MLP,xlmr-100] [--threads 1]`.

The default nets and the six of the papers, as their configs say, are trained and predict through the product's own
path, on the GPU if there is one. Batches are `SPREAD` of a group of 40 that is sorted by the number of words, evenly
spread, again and again until the seconds are over, at least once. OUTPUT/device.json holds all, standard output the
table.
"""

import argparse
import json
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import faiss
import lightning
import numpy as np
import torch
import yaml
from floors import clock, measure_rates, wait
from inputs import SIZES, Inputs, Size
from jobs import processor
from torch.utils.data import DataLoader, Sampler
from torch.utils.flop_counter import FlopCounterMode

from hyperofa import nets
from hyperofa.bundle.bundle import Bundle
from hyperofa.export.prediction import predict
from hyperofa.nets.bilstm import BiLSTM
from hyperofa.nets.inputs import Memory
from hyperofa.nets.net import Net
from hyperofa.nets.registry import build
from hyperofa.training.datamodule import HyperDataModule
from hyperofa.training.hypernetwork import Hypernetwork
from hyperofa.training.module import HyperModule
from hyperofa.training.samplers import Draw, GroupedBatches
from hyperofa.training.trainers import quiet
from hyperofa.training.word_sets import WordIndices

CONFIGS = Path(__file__).parent.parent / "configs"
PAPER = [f"{model}-{width}" for model in ("roberta", "xlmr") for width in (100, 200, 400)]
FILES = {"SourceAttention": "fit.yaml", "MLP": "tokens.yaml"} | {name: f"paper/{name}.yaml" for name in PAPER}
ROBERTA = 50_265  # source tokens; XLM-R's are those of the size
SPREAD, GROUP = 8, 40
TRAINED_SHARE = 0.97  # of the tokens with words (`reference.split_tokens`)
PASSES, UPDATES = 3, 10  # of a training step: products for each forward one; times that it reads or writes every weight


class Spread(Sampler[Draw]):
    """Some batches of a group: the first of them to warm up, then all in whole rounds until the time is over."""

    def __init__(self, draws: list[Draw], warm: int, seconds: float) -> None:
        self._draws, self.warm, self._seconds = draws, warm, seconds

    def __iter__(self) -> Iterator[Draw]:
        yield from self._draws[: self.warm]
        start = clock()
        while True:
            yield from self._draws
            if clock() - start >= self._seconds:
                return


class Data(HyperDataModule):
    """Source tokens alone, as `Spread` has them, with coordinates as wide as asked for."""

    def __init__(self, bundle: Bundle, width: int, warm: int, seconds: float, **settings: Any) -> None:
        super().__init__(str(bundle.path), **settings | {"streams": "tokens"})
        self.bundle, self.coordinate_dim = _widened(bundle, width), width
        self._warm, self._seconds = warm, seconds

    def train_dataloader(self) -> DataLoader[Any]:
        loader = self._tokens("train")
        sizes = self._tables["source"].counts[self.bundle.split["train"]]
        group = GroupedBatches(sizes, self._batch_size, group=GROUP, ascending=True)._batches()[:GROUP]
        draws = [Draw(group[at], (0, at)) for at in _middles(len(group))]
        self.sampler = Spread(draws, self._warm, self._seconds)
        return {"tokens": self._loader(loader.dataset, self.sampler)}


class Training(lightning.Callback):
    """Steps, tokens, words and seconds of all batches but the first ones."""

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, number: int) -> None:
        warm = trainer.datamodule.sampler.warm
        if number >= warm:
            mask = batch["tokens"].sets.mask
            self._sizes.append((len(mask), mask.sum()))
        if number == warm - 1:
            self._sizes: list[tuple[int, torch.Tensor]] = []
            wait()
            self._start = clock()

    def on_train_epoch_end(self, trainer: Any, module: Any) -> None:
        wait()
        self.seconds, self.steps = clock() - self._start, len(self._sizes)
        self.tokens, self.words = (int(sum(column)) for column in zip(*self._sizes, strict=True))


class Prediction:
    """Stands in for `sharding.ShardCache` and its shards: evenly spread parts of all tokens until the time is over."""

    def __init__(self, batch_size: int, seconds: float) -> None:
        self._batch_size, self._allowed = batch_size, seconds

    def shards(self, name: str, count: int, size: int, progress: str) -> "Prediction":
        size = min(self._batch_size, max(1, count // SPREAD))
        self.spans = [slice(at, at + size) for at in _middles(count - size)]
        self._count = count
        return self

    def __iter__(self) -> Iterator[slice]:
        yield self.spans[0]  # not timed
        self.tokens, start = 0, clock()
        while not self.tokens or clock() - start < self._allowed:
            yield from self.spans
            self.tokens += sum(span.stop - span.start for span in self.spans)
        self.seconds = clock() - start

    def keep(self, span: slice, rows: np.ndarray) -> None:
        self._width = rows.shape[1]

    def joined(self) -> tuple[np.ndarray]:
        return (np.broadcast_to(np.float32(0), (self._count, self._width)),)


def measure(name: str, bundle: Bundle, arguments: argparse.Namespace) -> dict[str, Any]:
    """What one net does a second, in training and in prediction."""
    config = yaml.safe_load((CONFIGS / FILES[name]).read_text(encoding="utf-8"))
    model, settings = config["model"], config["data"]
    chosen = model.pop("net")
    net_class = getattr(nets, chosen["class_path"].rpartition(".")[2])
    width = int(name.rpartition("-")[2]) if name in PAPER else bundle.meta.coordinate_dim
    if arguments.batch_size and name in PAPER:
        settings["batch_size"] = arguments.batch_size
    warm = SPREAD if arguments.compile or torch.cuda.is_available() else 1
    data = Data(bundle, width, warm, arguments.seconds, word_table=arguments.word_table, **settings)
    module = HyperModule(
        data.word_dim,
        width,
        partial(net_class, **chosen.get("init_args", {})),
        **model | {"schedule": "constant", "compile": arguments.compile},
    )
    training = Training()
    _fit(module, data, training, arguments)
    net, on_device = build(module.net.spec()).eval(), len(data.word_vectors) > 1  # on the CPU, and not compiled
    net.load_state_dict(module.net.state_dict())
    steps, tokens, words = training.steps, training.tokens, training.words
    weights = sum(parameter.numel() for parameter in net.parameters())
    width_of_words = (data.word_vectors.element_size() if on_device else 4) * data.word_dim
    forward = _operations(net, data, module._memory.to(torch.device("cpu")), words, tokens)
    prediction = Prediction(data._batch_size, arguments.seconds)
    trained = Hypernetwork(net, ("exact",), data.max_words, data.words, data.bundle.meta.training_fingerprint)
    predict(trained, data.bundle, data._batch_size, prediction)  # type: ignore[arg-type]  # stands in for a ShardCache
    sizes = np.sort(
        np.minimum(bundle.target.counts[bundle.target.covered], data.max_words)
    )  # in the order of `predict`
    epochs = config["trainer"]["max_epochs"] if name in PAPER else None
    an_epoch = int(TRAINED_SHARE * bundle.source.covered.sum())
    return {
        "net": name,
        "parameters": weights,
        "batch_size": data._batch_size,
        "words_a_token": words / tokens,
        "steps": steps,
        "seconds": training.seconds,
        "tokens_a_second": tokens / training.seconds,
        "operations_a_second": PASSES * forward / training.seconds,
        "bytes_a_second": (4 * UPDATES * weights * steps + width_of_words * words) / training.seconds,
        "predicted_a_second": prediction.tokens / prediction.seconds,
        "predicted_words_a_token": float(np.mean([sizes[span] for span in prediction.spans])),
        "epochs": epochs,
        "tokens_an_epoch": an_epoch,
        "projected_hours": epochs and epochs * an_epoch * training.seconds / tokens / 3600,
        "word_vectors": "device" if on_device else "stream",
    }


def _fit(module: HyperModule, data: Data, training: Training, arguments: argparse.Namespace) -> None:
    quiet = ("logger", "enable_checkpointing", "enable_model_summary", "enable_progress_bar", "use_distributed_sampler")
    lightning.Trainer(
        devices=1,
        max_epochs=1,
        limit_val_batches=0,
        precision=arguments.precision,
        callbacks=[training],
        **dict.fromkeys(quiet, False),
    ).fit(module, data)


def _operations(net: Net, data: Data, memory: Memory, words: int, tokens: int) -> float:
    """Of the products of a forward pass over so many tokens with so many words."""
    if isinstance(net, BiLSTM):  # whose products torch does not count
        matrices = {
            part: sum(p.numel() for p in getattr(net, part).parameters() if p.ndim > 1) for part in ("lstm", "head")
        }
        return 2.0 * (matrices["lstm"] * words + matrices["head"] * tokens)
    batch = data._tokens("train").dataset[next(iter(data.sampler))]
    sets = batch.sets.fetch(data.word_vectors.cpu()) if isinstance(batch.sets, WordIndices) else batch.sets
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        net(sets, memory, batch.self_index)
    return counter.get_total_flops() * tokens / len(batch.self_index)


def _middles(count: int, parts: int = SPREAD) -> list[int]:
    """The middles of so many equal parts of `count` positions."""
    return [(2 * part + 1) * count // (2 * parts) for part in range(parts)]


def _widened(bundle: Bundle, width: int) -> Bundle:
    """The bundle with coordinates repeated to another width."""
    wide = Bundle(bundle.path, replace(bundle.meta, input_dim=width))
    wide.__dict__["coordinates"] = np.resize(bundle.coordinates.T, (width, bundle.meta.source_tokens)).T
    return wide


def table(done: dict[str, Any]) -> str:
    """The measurements as Markdown."""
    rates, precision = done["rates"], done["precision"]
    rate = rates["float32" if precision == "32-true" else "bfloat16"]
    products = ", ".join(f"{rates[name] / 1e9:,.0f} GFLOP/s {name}" for name in ("float32", "bfloat16"))
    lines = [
        f"{done['device']}, torch {done['torch']}, {precision}. Matrix products: {products}; "
        f"memory: {rates['read'] / 1e9:.1f} GB/s read.",
        "",
        "| net | parameters, M | batch | words a token | trained tokens/s | of the matrix rate | of the bandwidth "
        "| words a token | predicted tokens/s | epochs × tokens | projected hours |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in done["nets"]:
        epochs = f"{row['epochs']} × {row['tokens_an_epoch']:,}" if row["epochs"] else "–"
        hours = f"{row['projected_hours']:,.1f}" if row["epochs"] else "–"
        lines.append(
            f"| {row['net']} | {row['parameters'] / 1e6:.1f} | {row['batch_size']} | {row['words_a_token']:.1f} "
            f"| {row['tokens_a_second']:,.1f} | {row['operations_a_second'] / rate:.1%} "
            f"| {row['bytes_a_second'] / rates['read']:.1%} | {row['predicted_words_a_token']:.1f} "
            f"| {row['predicted_a_second']:,.1f} | {epochs} | {hours} |"
        )
    return "\n".join(lines)


def _bundle(root: Path, size: Size) -> Bundle:
    inputs = Inputs(root, size)
    inputs.make()
    if not inputs.bundle.exists():
        inputs.prepare()
    return Bundle.load(inputs.bundle)


def _device(threads: int) -> str:
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"{threads} of the threads of {processor()}" if threads > 1 else f"One thread of {processor()}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path, help="folder of results and inputs")
    parser.add_argument("--nets", type=lambda text: text.split(","), default=list(FILES), help=", ".join(FILES))
    parser.add_argument("--size", choices=SIZES, default="full", help="of the inputs, which are made if missing")
    parser.add_argument("--seconds", type=float, default=20, help="of training, and of prediction, of each net")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of the CPU")
    parser.add_argument("--batch_size", type=int, help="of the papers' nets, instead of theirs")
    parser.add_argument("--precision", default="32-true", help="of the trainer: 32-true, bf16-mixed")
    parser.add_argument("--word_table", choices=("auto", "device", "stream"), default="auto")
    parser.add_argument("--compile", action="store_true", help="the nets")
    arguments = parser.parse_args()
    if unknown := set(arguments.nets) - set(FILES):
        parser.error(f"expected some of {', '.join(FILES)}, found {', '.join(sorted(unknown))}")
    torch.set_num_threads(arguments.threads)
    faiss.omp_set_num_threads(arguments.threads)
    with quiet():
        run(arguments)


def run(arguments: argparse.Namespace) -> None:
    """Measure the nets, note what is done after each, and print the table."""
    size, root = SIZES[arguments.size], arguments.output / "inputs"
    smaller = replace(size, name=f"{size.name}-roberta", source_tokens=min(ROBERTA, size.source_tokens))
    done: dict[str, Any] = {"device": _device(arguments.threads), "torch": torch.__version__}
    done |= {"precision": arguments.precision, "size": arguments.size, "nets": []}
    done["rates"] = measure_rates("cuda" if torch.cuda.is_available() else "cpu")
    for name in arguments.nets:
        done["nets"].append(measure(name, _bundle(root, size if name.startswith("xlmr") else smaller), arguments))
        arguments.output.mkdir(parents=True, exist_ok=True)
        (arguments.output / "device.json").write_text(json.dumps(done, indent=1) + "\n", encoding="utf-8")
    print(table(done))


if __name__ == "__main__":
    main()
