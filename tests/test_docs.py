"""The pages of docs/: every block runs, in a folder where small stand-ins lie under the names that the pages use."""

import contextlib
import gzip
import json
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import yaml

import hyperofa
from hyperofa import vectors
from hyperofa.cli import main
from hyperofa.evaluation.task import Request
from hyperofa.help import flags_of
from hyperofa.vectors.conversion import build_store
from hyperofa.vectors.readers import open_file
from tests.conftest import CONFIGS, ENGLISH, GERMAN, QUIET, TINY_TEXT

ROOT = CONFIGS.parent
DOCS = ROOT / "docs"
PAGES = {page.name: page.read_text(encoding="utf-8") for page in sorted(DOCS.glob("*.md"))}
FENCE = re.compile(r"^```(sh|python)\n(.*?)^```", re.MULTILINE | re.DOTALL)
NOT_RUN = {
    "pip install 'hyperofa[cpu]'",  # test_presets.py installs the wheel
    "hyperofa demo --output data/demo",  # tests/demo
}
BUDGET = {
    "doctor": ["--measure", "false"],
    "vectors": ["--dim", "4", "--min_count", "1"],
    "fit": [*TINY_TEXT, *QUIET],
    "distill": [
        *("--training.new_steps", "2", "--training.evaluate_every", "1", "--training.batch_size", "2"),
        *("--trainer.accelerator", "cpu"),
    ],
    "pretrain": [
        *("--training.new_steps", "1", "--training.steps", "2", "--training.evaluate_every", "1"),
        *("--training.batch_size", "2", "--training.block_size", "16", "--trainer.accelerator", "cpu"),
    ],
}
"""What makes a command of the pages short."""


@pytest.fixture(scope="session")
def stand_ins(model_folders, tokenizer_folders, vector_file, text_file, bundles, fitted, tmp_path_factory):
    """What the pages name and do not make themselves."""
    root = tmp_path_factory.mktemp("stand_ins")
    (root / "german.txt").write_text("".join(f"{line}\n" for line in GERMAN * 6), encoding="utf-8")
    for language, texts in (("eng", ENGLISH), ("deu", GERMAN)):
        (root / f"{language}.tsv").write_text("".join(f"{i}\t{text}\n" for i, text in enumerate(texts)), "utf-8")
    pairs = (f"{one}\t{other}\n" for one, other in zip(ENGLISH, GERMAN, strict=True))
    (root / "pairs.tsv").write_text("".join(pairs), encoding="utf-8")
    (root / "DATA").mkdir()
    with gzip.open(root / "DATA" / "heldout.tsv.gz", "wt", encoding="utf-8") as file:
        for language, texts in (("eng", ENGLISH), ("deu", GERMAN)):
            file.writelines(f"{language}\t{number}\t{text}\n" for number, text in enumerate(texts))
    hyperofa.initialise(bundles["bert"], "mean").save(root / "model")
    return {
        **{name: root / name for name in ("german.txt", "eng.tsv", "deu.tsv", "pairs.tsv", "DATA")},
        "bert-base-uncased": model_folders["bert"],
        "TOKENIZER": tokenizer_folders["unigram"],
        "vectors.vec": vector_file,
        "english.txt": text_file,
        "data/bundle": bundles["bert"],
        "data/model": root / "model",
        "checkpoints/fit/version_0": fitted["fit"],
    }


def put(stand_ins: dict[str, Path], text: str, folder: Path) -> None:
    """Lay out what a page reads and does not make."""
    made = set(re.findall(r"--output (\S+)", text)) | (
        {"checkpoints/fit/version_0"} if " fit --data.b" in text else set()
    )
    for name, source in stand_ins.items():
        if name not in made:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (shutil.copytree if source.is_dir() else shutil.copyfile)(source, folder / name)


def run_shell(block: str) -> None:
    """Run the lines of a block: our commands in this process, others in a shell."""
    for line in filter(None, re.sub(r"\\\n\s*", " ", block).splitlines()):
        words = shlex.split(line, comments=True)
        if line in NOT_RUN or not words:
            continue
        if "TensorBoardLogger" in words and find_spec("tensorboard") is None:
            continue
        if words[0] != "hyperofa":
            subprocess.run(["bash", "-euo", "pipefail", "-c", line], check=True, timeout=60)
            continue
        with contextlib.ExitStack() as stack:
            if ">" in words:
                *words, _, name = words
                stack.enter_context(contextlib.redirect_stdout(stack.enter_context(open(name, "w", encoding="utf-8"))))
            main([*words[1:], *BUDGET.get(words[1], [])])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("page", [name for name, text in PAGES.items() if FENCE.search(text)])
def test_every_block_runs(page, stand_ins, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    put(stand_ins, PAGES[page], tmp_path)
    for number, (language, block) in enumerate(FENCE.findall(PAGES[page])):
        if language == "sh":
            run_shell(block)
        else:
            (tmp_path / f"block{number}.py").write_text(block, encoding="utf-8")
            runpy.run_path(str(tmp_path / f"block{number}.py"))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_notebook_runs(stand_ins, tmp_path, monkeypatch, capfd):
    cells = json.loads((DOCS / "notebook.ipynb").read_text(encoding="utf-8"))["cells"]
    code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    assert '{"max_epochs": 6}' in code
    put({name: path for name, path in stand_ins.items() if "/" not in name}, "", tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("builtins.display", print, raising=False)
    few = '{"max_epochs": 1, "limit_train_batches": 1, "enable_progress_bar": False}'
    (tmp_path / "notebook.py").write_text(code.replace('{"max_epochs": 6}', few), encoding="utf-8")
    assert runpy.run_path(str(tmp_path / "notebook.py"))["scores"]["SR-B"]["top10"].keys() == {"eng", "deu"}


@pytest.mark.filterwarnings("ignore")
def test_the_examples_of_contributing_are_parts_that_work(bundles, text_file, vector_file, tmp_path, monkeypatch):
    for module, registry in (
        ("methods.registry", "METHODS"),
        ("nets.registry", "NETS"),
        ("evaluation.task", "_REGISTERED"),
    ):
        there = import_module(f"hyperofa.{module}")
        monkeypatch.setattr(there, registry, dict(getattr(there, registry)))
    blocks = [code for kind, code in FENCE.findall((ROOT / "CONTRIBUTING.md").read_text("utf-8")) if kind == "python"]
    found = {}
    for number, block in enumerate(blocks):
        module = ModuleType(f"part_of_my_own_{number}")
        monkeypatch.setitem(sys.modules, module.__name__, module)
        exec(compile(block, module.__name__, "exec"), vars(module))
        found |= vars(module)
    few = {"max_epochs": 1, "log_every_n_steps": 1, "enable_progress_bar": False}
    net = hyperofa.fit(bundles["bert"], net=found["Linear"], trainer=few)
    assert type(net.net).__name__ == "Linear"
    assert hyperofa.initialise(bundles["bert"], hypernetwork=net).counts()["predicted"]
    assert hyperofa.initialise(bundles["bert"], "heaviest").counts()["predicted"]

    plain = open_file(vector_file)
    (block,) = plain.blocks(plain.count, 0)
    np.savez(tmp_path / "words.npz", words=np.array(block.words), vectors=block.vectors)
    monkeypatch.setitem(vectors.READERS, ".npz", "npz_reader")
    monkeypatch.setitem(sys.modules, "hyperofa.vectors.npz_reader", SimpleNamespace(open_vectors=found["open_vectors"]))
    stores = [build_store([str(path)], tmp_path / path.suffix) for path in (vector_file, tmp_path / "words.npz")]
    assert stores[0].content_hash == stores[1].content_hash
    told = [flag.about for flag in flags_of("hyperofa.bundle.prepare:prepare") if flag.name == "vectors"]
    assert ".npz" in told[0]

    request = Request(text=[text_file])
    tokenizer = hyperofa.Bundle.load(bundles["bert"]).tokenizer("target")
    numbers = found["TASK"].score(found["TASK"].read(request), (None, tokenizer), (None, None), request).numbers
    assert numbers["fertility"]["tokens"]["english"] >= 1


def test_every_page_is_found_and_every_link_leads_somewhere():
    nav = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]
    listed = re.findall(r"[\w-]+\.md", str(nav))
    assert sorted(listed) == sorted(PAGES)
    for name, text in PAGES.items():
        for target in re.findall(r"\]\(([^)\s]+)\)", text):
            path, _, anchor = target.partition("#")
            if "://" in path:
                continue
            there = DOCS / (path or name)
            assert there.is_file(), f"{name}: {target}"
            assert not anchor or anchor in anchors(there.read_text(encoding="utf-8")), f"{name}: {target}"
        for path in re.findall(r'^--8<-- "(.+)"$', text, re.MULTILINE):
            assert (ROOT / path).is_file(), f"{name}: {path}"


def anchors(text: str) -> set[str]:
    """What links to a page's headings end with."""
    heads = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", head).strip().lower()) for head in heads}


def test_every_public_name_has_its_place_in_the_reference():
    listed = re.findall(r"^::: hyperofa\.(\w+)$", PAGES["api.md"], re.MULTILINE)
    assert sorted(listed) == sorted(hyperofa.__all__)


def test_the_figure_of_the_house_has_every_room():
    figure = (DOCS / "figures" / "house.svg").read_text(encoding="utf-8")
    drawn = set(re.findall(r'class="name">(\w+)<', figure))
    assert {path.parent.name for path in (ROOT / "hyperofa").glob("*/__init__.py")} <= drawn


def test_extras_of_the_pages_exist():
    known = set(
        re.findall(r"^(\w+) =$", (ROOT / "setup.cfg").read_text("utf-8").partition("[options.extras_require]")[2], re.M)
    )
    text = "".join(PAGES.values()) + (ROOT / "README.md").read_text(encoding="utf-8")
    named = {extra for group in re.findall(r"hyperofa\[([\w,]+)\]", text) for extra in group.split(",")}
    assert named
    assert named <= known


@pytest.mark.slow
def test_the_site_builds_and_fetches_nothing(tmp_path):
    pytest.importorskip("mkdocs")
    pytest.importorskip("mkdocstrings")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    subprocess.run(command, check=True, cwd=ROOT, timeout=300)
    for page in (tmp_path / "site").rglob("*.html"):
        fetched = re.findall(
            r'<(?:script|img|link rel="stylesheet")[^>]+(?:src|href)="(https?:[^"]+)"', page.read_text("utf-8")
        )
        assert fetched == [], page.name


def test_the_readme_has_ten_lines_of_the_glossary():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    table = readme.partition("| word | meaning |\n|---|---|\n")[2].partition("\n\n")[0].splitlines()
    assert len(table) == 10
    assert set(table) <= set(PAGES["glossary.md"].splitlines())
