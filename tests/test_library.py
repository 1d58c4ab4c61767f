"""The library's front door: every public name is typed and documented, its example runs, importing it costs nothing."""

import ast
import doctest
import gzip
import inspect
import re
import runpy
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import hyperofa
from hyperofa.evaluation.scores import Metric
from tests.conftest import ENGLISH, GERMAN, WORD_DIM

FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
CALLABLES = [name for name in hyperofa.__all__ if inspect.isfunction(getattr(hyperofa, name))]


@pytest.fixture(scope="module")
def files(model_folders, tokenizer_folders, vector_file, text_file, bundles, fitted, tmp_path_factory):
    """A folder with all that the examples name."""
    folder = tmp_path_factory.mktemp("examples")
    links = {
        "bert": model_folders["bert"],
        "tokenizer": tokenizer_folders["unigram"],
        "words.vec": vector_file,
        "english.txt": text_file,
        "bundle": bundles["bert"],
        "best.ckpt": fitted["tokens"] / "checkpoints" / "best.ckpt",
    }
    for name, target in links.items():
        (folder / name).symlink_to(target)
    (folder / "german.txt").write_text("".join(f"{line}\n" for line in GERMAN * 4), encoding="utf-8")
    (folder / "french.vec").write_text(f"2 {WORD_DIM}\nfleuve {'1 ' * WORD_DIM}\nville {'2 ' * WORD_DIM}\n")
    rows = [line.split(" ") for line in vector_file.read_text(encoding="utf-8").splitlines()[1:]]
    english = [f"{word.removeprefix('eng:')} {' '.join(row[::-1])}" for word, *row in rows if word.startswith("eng:")]
    (folder / "turned.vec").write_text("\n".join([f"{len(english)} {WORD_DIM}", *english, ""]))
    for language, lines in (("eng", ENGLISH * 2), ("deu", GERMAN * 2)):
        verses = (f"verse {number}\t{line}\n" for number, line in enumerate(lines))
        (folder / f"{language}.tsv").write_text("".join(verses), encoding="utf-8")
    pairs = "".join(f"{one}\t{other}\n" for one, other in zip(ENGLISH, GERMAN, strict=True))
    (folder / "pairs.tsv").write_text(pairs, encoding="utf-8")
    (folder / "data").mkdir()
    with gzip.open(folder / "data" / "heldout.tsv.gz", "wt", encoding="utf-8") as file:
        for language, texts in (("eng", ENGLISH), ("deu", GERMAN)):
            file.writelines(f"{language}\t{number}\t{text}\n" for number, text in enumerate(texts))
    hyperofa.initialise(bundles["bert"], "mean").save(folder / "model")
    return folder


@pytest.mark.parametrize("name", CALLABLES)
def test_every_call_has_an_example_that_runs(name, files, monkeypatch, capfd):
    monkeypatch.chdir(files)
    registries = {"methods.registry": "METHODS", "nets.registry": "NETS", "evaluation.task": "_REGISTERED"}
    for module, registry in registries.items():  # what an example registers goes again
        there = import_module(f"hyperofa.{module}")
        monkeypatch.setattr(there, registry, dict(getattr(there, registry)))
    (example,) = doctest.DocTestFinder(recurse=False).find(getattr(hyperofa, name), name, globs={})
    assert example.examples, f"{name} has no example"
    assert any(f"hyperofa.{name}" in each.source for each in example.examples)
    assert not any(doctest.SKIP in each.options for each in example.examples)
    said: list[str] = []
    found = doctest.DocTestRunner(optionflags=FLAGS).run(example, out=said.append)
    assert found.failed == 0, "".join(said)


def test_importing_it_loads_nothing_heavy():
    heavy = "sorted({'torch', 'transformers', 'lightning', 'numpy', 'scipy', 'tokenizers'} & sys.modules.keys())"
    code = f"import hyperofa, sys; print({heavy}, hyperofa.__all__ == dir(hyperofa))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[] True\n"


def test_type_checkers_see_what_python_does():
    tree = ast.parse(Path(hyperofa.__file__).read_text(encoding="utf-8"))
    (block,) = [each for each in tree.body if isinstance(each, ast.If)]
    imported = {alias.name: each.module for each in block.body for alias in each.names}  # type: ignore[attr-defined]
    assert {name: f"hyperofa.{module}" for name, module in hyperofa._HOMES.items()} == imported
    assert sorted(imported) == sorted(hyperofa.__all__)
    for name in hyperofa.__all__:
        found = getattr(hyperofa, name)
        assert found is getattr(sys.modules[imported[name]], name)
        assert inspect.getdoc(found)
    for name in CALLABLES:
        parameters = inspect.signature(getattr(hyperofa, name)).parameters.values()
        assert all(each.annotation is not inspect.Parameter.empty for each in parameters)


@pytest.mark.parametrize("name", CALLABLES)
def test_files_may_be_named_by_strings(name):
    """For type checkers too: `FilePath` is `str | Path`; the examples show that it is so when they run."""
    tree = ast.parse(inspect.getsource(inspect.unwrap(getattr(hyperofa, name))))
    given = next(node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)).args
    kinds = [ast.unparse(each.annotation) for each in (*given.args, *given.kwonlyargs) if each.annotation is not None]
    assert [kind for kind in kinds if re.search(r"\bPath\b", kind) and "str | Path" not in kind] == []


def test_what_a_notebook_shows_is_short(bundles, fitted):
    assert repr(hyperofa.Bundle.load(bundles["bert"])) == f"Bundle(path={bundles['bert']!r})"
    net = hyperofa.Hypernetwork.load(fitted["tokens"] / "checkpoints" / "best.ckpt")
    assert re.fullmatch(r"Hypernetwork\(MLP, parameters=[\d,]+, word_dim=12, coordinate_dim=24, copied=.*\)", repr(net))
    metric = {"SR-B": {"top1": Metric("top-1 accuracy", main=True)}}
    scores = hyperofa.Scores({"SR-B": {"top1": {"deu": 12.34}}}, metric)
    assert repr(scores) == str(scores)
    assert "12.3" in repr(scores)


def test_another_name_is_none():
    with pytest.raises(AttributeError, match="module hyperofa has no attribute magic"):
        hyperofa.magic  # noqa: B018


@pytest.mark.filterwarnings("ignore:The number of training batches")
def test_the_readme_leads_from_vectors_to_a_scored_model(files, tmp_path, monkeypatch, capsys):
    """Word by word what the README says, with shorter training; the model stays in memory until it is saved."""
    readme = (Path(hyperofa.__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    section = readme.partition("**From Python**")[2]
    code = section.partition("```python\n")[2].partition("```")[0]
    names = {"bert-base-uncased": "bert", "TOKENIZER": "tokenizer", "vectors.vec": "words.vec"}
    names |= {"english.txt": "english.txt", "DATA": "data"}
    for told, there in names.items():
        assert f'"{told}"' in code
        code = code.replace(f'"{told}"', repr(str(files / there)))
    assert '{"max_epochs": 6}' in code
    monkeypatch.chdir(tmp_path)
    code = code.replace('{"max_epochs": 6}', '{"max_epochs": 1, "limit_train_batches": 1}')
    (tmp_path / "notebook.py").write_text(code, encoding="utf-8")
    found = runpy.run_path(str(tmp_path / "notebook.py"))
    said = capsys.readouterr().out
    assert str(found["scores"]) in said
    assert set(found["scores"]["SR-B"]["top10"]) == {"eng", "deu"}
    assert "<table>" in found["scores"]._repr_html_()
    assert (tmp_path / "data" / "model" / "model.safetensors").is_file()
