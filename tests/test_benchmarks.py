"""The benchmark suite: both ways of every stage give one result, the command runs, its table says what was measured."""

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
sys.path.append(str(BENCHMARKS))

import device  # noqa: E402
import peers  # noqa: E402
import plain  # noqa: E402
import suite  # noqa: E402
from inputs import SIZES, Inputs, World, halves  # noqa: E402
from report import growth, summarise, table  # noqa: E402
from stages import STAGES, Target  # noqa: E402

TINY = SIZES["tiny"]
COMPARED = [name for name, stage in STAGES.items() if "plain" in stage.sides]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    made = Inputs(tmp_path_factory.mktemp("inputs"), TINY)
    assert len(made.make()) == 4
    assert made.make() == []
    made.prepare()
    return made


@pytest.mark.parametrize("name", COMPARED)
def test_both_ways_agree(name, inputs):
    stage, facts = STAGES[name], {}
    for side in ("product", "plain"):
        job = stage.sides[side](inputs)
        result = job.run()
        seconds = np.ones(2) if job.estimate is None else job.estimate(result)
        assert (seconds > 0).all()
        facts[side] = job.check(result)
    if stage.agree is not None:
        assert stage.agree(facts["product"], facts["plain"])[0], stage.agree(facts["product"], facts["plain"])[1]


def test_differences_are_seen(inputs):
    job = STAGES["matching"].sides["product"](inputs)
    found = job.check(job.run())
    assert not STAGES["matching"].agree(found, {"pairs": found["pairs"][1:]})[0]
    assert not STAGES["factorisation"].agree({"error": 0.51}, {"error": 0.5})[0]
    row, sure = np.zeros((1, 2)), np.array([True])
    assert not STAGES["ofa"].agree({"rows": row + 1}, {"rows": row, "decided": sure})[0]
    assert STAGES["ofa"].agree({"rows": row + 1}, {"rows": row, "decided": ~sure})[0]


def test_a_checkpoint_is_measured_against_its_net(inputs):
    job = STAGES["checkpoint"].sides["product"](inputs)
    facts = job.check(job.run())
    assert 1 < facts["checkpoint_ratio"] <= facts["resumable_ratio"]


def test_plain_mixture():
    keys = np.array([[1.0, 0.0], [0.6, 0.8], [0.0, 0.0]])
    rows = plain.ofa(np.array([[2.0, 0.0]]), keys, np.eye(3), neighbours=2, temperature=0.1)
    weights = np.exp(np.array([1.0, 0.6]) / 0.1)
    np.testing.assert_allclose(rows, [[*(weights / weights.sum()), 0]], rtol=1e-6)


def test_worlds_repeat_and_grow():
    world = World(TINY, None)
    assert world.entries() == World(TINY, None).entries()
    assert len(set(entry[:2] for entry in world.entries())) == TINY.words
    half = World(halves(TINY)["words"], None)
    assert half.entries() == world.entries()[: TINY.words // 2]
    assert Inputs(Path("x"), halves(TINY)["words"]).target == Inputs(Path("x"), TINY).target


def test_real_languages_come_first(tmp_path):
    with gzip.open(tmp_path / "deu.tsv.gz", "wt", encoding="utf-8") as file:
        file.write("MAT.1.1\tDas ist das Buch, das ist es.\nMAT.1.2\tDas Haus\n")
    world = World(TINY, tmp_path)
    assert world.codes[:2] == ["deu", "qaa"]
    assert world.words(0, 2) == ["das", "ist"]


def measured(stage, side, seconds, size="tiny", **more):
    costs = {"cpu_seconds": seconds, "peak_mib": 500.0, "private_mib": 400.0, "items": 10, "estimated": False}
    floors = {"operations": 1e9, "searched": 0.0, "traffic": 0.0, "facts": {}}
    return {"stage": stage, "side": side, "size": size, "seconds": seconds} | costs | floors | more


RATES = {"float32": 1e10, "bfloat16": 2e10, "int8": 4e10, "read": 1e10}


def test_medians_ratios_and_targets():
    runs = [measured("matching", "product", seconds) for seconds in (1.0, 2.0, 9.0)]
    runs += [measured("matching", "plain", 10.0), measured("matching", "floor", 1.9)]
    (row,) = summarise(runs, RATES)
    assert (row["seconds"], row["ratio"], row["floor"]) == (2.0, 5.0, 1.9)
    assert [asked["met"] for asked in row["asked"]] == [True, True]
    assert Target("seconds", 3).met(2)
    assert not Target("ratio", 3).met(2)


def test_floors_add_searches_at_the_better_rate():
    for rates, floor in ((RATES, 0.1 + 0.2), (RATES | {"int8": 1e9}, 0.1 + 0.8), (RATES | {"read": 1e6}, 5.0)):
        (row,) = summarise([measured("ofa", "product", 9.0, searched=8e9, traffic=5e6)], rates)
        assert row["floor"] == pytest.approx(floor)


def test_growth_is_an_exponent():
    runs = [measured("ofa", "product", 8.0)]
    runs += [measured("ofa", "product", 8.0 / 2**n, f"tiny-{axis}") for n, axis in enumerate(halves(TINY))]
    assert growth(summarise(runs, RATES))[-1] == "| ofa | tiny | 0.0 (+0) | 1.0 (+0) | 2.0 (+0) |"


def test_failures_stand_in_the_table():
    runs = [{"stage": "ofa", "size": "tiny", "side": "product", "error": "MemoryError"}]
    runs += [measured("export", "product", 1.0), runs[0] | {"stage": "export", "side": "plain", "error": "no disk"}]
    done = {"measurements": runs, "rates": RATES, "summary": summarise(runs, RATES)}
    done["machine"] = {"cpu": "CPU", "cores": 2, "memory_gib": 8, "torch": "2", "tokenizers": "0"}
    lines = table(done).splitlines()
    assert lines[-2].startswith("| ofa | tiny |")
    assert lines[-2].endswith("product: MemoryError |")
    assert lines[-1].startswith("| export | tiny | 1 |")
    assert lines[-1].endswith("plain: no disk |")


def suite_words(output, *words):
    return [str(BENCHMARKS / "suite.py"), str(output), "--sizes", "tiny", *words]


@pytest.fixture
def run_suite(tmp_path, monkeypatch):
    """Run the command in this process, which has imported it; what it measures has processes of its own."""
    # One thread: where cores are shared, threads wait for each other longer than such small work takes.
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    for changed in ("PYTHONPATH", "TOKENIZERS_PARALLELISM"):  # by the command, for its processes
        monkeypatch.setenv(changed, os.environ.get(changed, ""))

    def run(*words):
        monkeypatch.setattr(sys, "argv", suite_words(tmp_path, *words))
        with pytest.raises(SystemExit) as end:
            suite.main()
        return end.value.code

    return run


def test_the_command(run_suite, tmp_path):
    chosen = ["ofa", "prediction", "export"]
    assert run_suite("--stages", ",".join(chosen)) == 0
    done = json.loads((tmp_path / "suite.json").read_text())
    rows = {row["stage"]: row for row in done["summary"]}
    assert list(rows) == [*chosen, "export + prediction"]
    assert rows["ofa"]["same"]["equal"]
    assert all(0 < row["private_mib"] <= row["peak_mib"] for row in rows.values())
    lines = [line for line in (tmp_path / "suite.md").read_text().splitlines() if line.startswith("|")]
    assert len(lines) == len(rows) + 2
    assert len({line.count("|") for line in lines}) == 1

    (tmp_path / "inputs" / "bundle-tiny" / "coordinates.npy").unlink()
    assert run_suite("--stages", "ofa") == 1
    again = {row["stage"]: row for row in json.loads((tmp_path / "suite.json").read_text())["summary"]}
    assert "coordinates.npy" in again.pop("ofa")["failed"][0]
    assert {name: row["seconds"] for name, row in again.items()} == {
        name: row["seconds"] for name, row in rows.items() if name != "ofa"
    }


def test_an_unknown_stage_is_named(tmp_path):
    command = [sys.executable, *suite_words(tmp_path, "--stages", "nonsense")]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 2
    assert "found nonsense" in result.stderr


def test_the_command_for_a_device(tmp_path, monkeypatch, capsys):
    names = ["SourceAttention", "MLP", "roberta-100"]
    words = [str(BENCHMARKS / "device.py"), str(tmp_path), "--size", "tiny", "--threads", "1"]
    words += ["--seconds", "0", "--batch_size", "8", "--word_table", "device", "--nets", ",".join(names)]
    monkeypatch.setattr(sys, "argv", words)
    device.main()
    rows = json.loads((tmp_path / "device.json").read_text())["nets"]
    assert [row["net"] for row in rows] == names
    for row in rows:
        assert row["word_vectors"] == "device"
        assert row["tokens_a_second"] > 0
        assert row["predicted_a_second"] > 0
    assert rows[2]["tokens_a_second"] * rows[2]["seconds"] == pytest.approx(8 * rows[2]["steps"])
    assert rows[2]["projected_hours"] == pytest.approx(
        370 * rows[2]["tokens_an_epoch"] / rows[2]["tokens_a_second"] / 3600
    )
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    assert [line.split(" | ")[0] for line in lines[2:]] == [f"| {name}" for name in names]


def test_what_a_package_costs_is_that_of_its_process(tmp_path):
    code = "import time; held = bytearray(200 * 2**20); time.sleep(0.3)"
    costs = peers.measured([sys.executable, "-c", code], tmp_path / "log.txt")
    assert costs["seconds"] >= 0.3
    assert 200 < costs["mib"] < 300
    with pytest.raises(SystemExit, match=r"log\.txt: expected an end without error, .*no such luck"):
        peers.measured([sys.executable, "-c", "raise SystemExit('no such luck')"], tmp_path / "log.txt")


def test_the_table_of_peers_is_ordered_by_what_they_score(tmp_path):
    for name, score in (("a", 30.0), ("b", 10.0), ("c", 20.0)):
        folder = tmp_path / "methods" / name
        folder.mkdir(parents=True)
        result = {
            "name": name,
            "means": {"SR-B": [1.0, score]},
            "seconds": 61.2,
            "cpu": 55.5,
            "mib": 2048.4,
            "random": 1234,
        }
        (folder / "result.json").write_text(json.dumps(result))
    rows = peers.table(tmp_path).splitlines()
    assert rows[0] == "| | SR-B top-1 | SR-B top-10 | seconds | CPU seconds | MiB | rows left to chance |"
    assert rows[2:] == [
        f"| {name} | 1.0 | {score} | 61 | 56 | 2,048 | 1,234 |"
        for name, score in (("b", 10.0), ("c", 20.0), ("a", 30.0))
    ]
