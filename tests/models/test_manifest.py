"""A sealed folder tells every change: which file, which rows."""

import json
import os
import re
import shutil

import numpy as np
import pytest
from safetensors.torch import load_file, save_file
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

from hyperofa.cli import main
from hyperofa.errors import InputError
from hyperofa.export.export import export
from hyperofa.models.loading import load_model
from hyperofa.models.manifest import MANIFEST, row_digests, seal, verify
from hyperofa.models.trim import trim
from hyperofa.models.vocabulary import Vocabulary
from hyperofa.runtime.folders import sha256_file
from hyperofa.runtime.hashing import sha256_text
from hyperofa.tokens.canonical import load_tokenizer
from tests.conftest import SPECIALS, train_byte_level, wrap

WORDS = "bert.embeddings.word_embeddings.weight"


@pytest.fixture(scope="module")
def original(bundles, tmp_path_factory):
    folder = tmp_path_factory.mktemp("export") / "model"
    export(bundles["bert"], "ofa", folder)
    return folder


@pytest.fixture
def folder(original, tmp_path):
    return shutil.copytree(original, tmp_path / "model")


def change(folder, name, ids):
    tensors = load_file(folder / "model.safetensors")
    tensors[name][ids] += 1
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def named(folder, token):
    return f"{token} ({load_tokenizer(folder).convert_ids_to_tokens(token)!r})"


def test_an_untouched_folder_is_intact(folder, capsys):
    result = verify(folder)
    assert result.intact
    assert result.files == len(list(folder.iterdir())) - 2  # the manifest, and the mark of a whole folder
    main(["verify", str(folder)])
    assert f"intact, {result.files} files" in capsys.readouterr().out


def test_what_a_kill_left_half_written_is_in_no_manifest(folder):
    """An export that goes on is to be the one that was not killed, to the byte."""
    before = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    (folder / ".tmpO1HDK2").touch()  # as safetensors leaves it
    seal(folder, load_model(folder), {})
    assert json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["files"] == before["files"]


@pytest.mark.parametrize("ids", [[7], [0, 5, 17]])
def test_changed_rows_are_named(folder, ids, capsys):
    change(folder, WORDS, ids)
    (problem,) = verify(folder).problems
    shown = ", ".join(named(folder, token) for token in ids)
    assert problem == f"model.safetensors: changed, {len(ids)} input rows: {shown}"
    with pytest.raises(SystemExit) as exit_:
        main(["verify", str(folder)])
    assert exit_.value.code == 1
    assert shown in capsys.readouterr().out


def test_a_changed_bias_is_named(folder):
    change(folder, "cls.predictions.bias", [3])
    assert verify(folder).problems == [f"model.safetensors: changed, 1 bias rows: 3 {named(folder, 3)[2:]}"]


def test_rows_of_an_untied_head_are_named(tmp_path):
    tokenizer = load_tokenizer(wrap(train_byte_level(["the old town"]), tmp_path / "source", **SPECIALS))
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    GPTNeoXForCausalLM(GPTNeoXConfig(vocab_size=len(tokenizer), **sizes)).save_pretrained(tmp_path / "source")
    (tmp_path / "text.txt").write_text("the town\n", encoding="utf-8")
    trim(str(tmp_path / "source"), [tmp_path / "text.txt"], tmp_path / "out")
    assert verify(tmp_path / "out").intact
    change(tmp_path / "out", "embed_out.weight", [9])
    (problem,) = verify(tmp_path / "out").problems
    assert problem == f"model.safetensors: changed, 1 output rows: {named(tmp_path / 'out', 9)}"


def test_other_weights_are_told_apart(folder):
    change(folder, "bert.embeddings.position_embeddings.weight", [0])
    assert re.search("changed, though no row of the vocabulary is", verify(folder).summary())


def test_many_rows_are_counted_and_some_are_named(folder):
    change(folder, WORDS, list(range(60)))
    assert re.search(r"changed, 60 input rows: 0 .* and 40 more", verify(folder).summary())


def test_unreadable_weights(folder):
    (folder / "model.safetensors").write_bytes(b"damaged")
    assert "model.safetensors: changed, and its rows cannot be read" in verify(folder).summary()


def test_damaged_digests(folder):
    change(folder, WORDS, [1])
    (folder / "rows.npy").write_bytes(b"damaged")
    found = verify(folder).problems
    assert "rows.npy: changed" in found
    assert "model.safetensors: changed, in which rows is unknown, since rows.npy is changed too" in found


def test_another_number_of_rows(folder, bundles, tmp_path):
    export(bundles["bert"], "ofa", tmp_path / "padded", pad_to_multiple_of=64)
    for name in ("model.safetensors", "config.json"):
        shutil.copy(tmp_path / "padded" / name, folder / name)
    assert re.search(r"expected \d+ rows of input, bias, found \d+ of input, bias", verify(folder).summary())


def test_files_changed_missing_and_new(folder):
    (folder / "config.json").write_text("{}", encoding="utf-8")
    (folder / "tokenizer_config.json").unlink()
    (folder / "notes.txt").write_text("mine", encoding="utf-8")
    expected = ["tokenizer_config.json: missing", "config.json: changed", "notes.txt: not in the manifest"]
    assert verify(folder).problems == expected


def test_a_filled_in_card_can_be_ignored(folder, capsys):
    with (folder / "README.md").open("a", encoding="utf-8") as file:
        file.write("\nMore.\n")
    assert verify(folder).problems == ["README.md: changed"]
    assert verify(folder, ignore=["README.md"]).intact
    main(["verify", "--model", str(folder), "--ignore", "README.md"])
    assert "intact" in capsys.readouterr().out
    with pytest.raises(InputError, match=r"ignore README: expected a file of"):
        verify(folder, ignore=["README"])


def test_counts_are_checked_against_the_table(folder):
    path = folder / "provenance.tsv"
    text = path.read_text(encoding="utf-8")
    before = text.count("\tcopied\t")
    path.write_text(text.replace("\tcopied\t", "\tmean\t", 1), encoding="utf-8")
    assert f"provenance.tsv: expected {before} copied rows, found {before - 1}" in verify(folder).problems
    path.write_text("nothing\n", encoding="utf-8")
    assert any(problem.startswith("provenance.tsv: expected") for problem in verify(folder).problems)


class TestErrors:
    def test_no_folder_and_no_manifest(self, folder, tmp_path, capsys):
        with pytest.raises(InputError, match=r"expected a model folder, found none"):
            verify(tmp_path / "nothing")
        (folder / "manifest.json").unlink()
        with pytest.raises(InputError, match=r"manifest\.json: expected a JSON file here, found none"):
            verify(folder)
        with pytest.raises(SystemExit) as exit_:
            main(["verify", str(folder)])
        assert exit_.value.code == 2
        assert "manifest.json" in capsys.readouterr().err

    @pytest.mark.parametrize("text", ["[]", "{}", '{"files": [], "rows": []}', '{"files": {}}', "null", "{", "\x00"])
    def test_broken_manifests(self, folder, text):
        (folder / "manifest.json").write_text(text, encoding="utf-8")
        with pytest.raises(InputError, match=r"manifest\.json: expected"):
            verify(folder)


def rewrite(folder, forge=False, **changes):
    """Change what the manifest says; as a forger, with its own digest and the hashes of all files written anew."""
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text(encoding="utf-8")) | changes
    if forge:
        manifest["files"] = {name: sha256_file(folder / name) for name in manifest["files"] if (folder / name).exists()}
        told = {name: value for name, value in manifest.items() if name != "content"}
        manifest["content"] = sha256_text(json.dumps(told, sort_keys=True, ensure_ascii=False))
    path.write_text(json.dumps(manifest), encoding="utf-8")


@pytest.mark.parametrize(
    "change", [{"method": "mean"}, {"seed": 1}, {"checkpoint": ["0" * 64]}, {"command": "hyperofa"}]
)
def test_what_the_manifest_says_is_hashed_too(folder, change):
    rewrite(folder)  # laid out anew, it says the same
    assert verify(folder).intact
    rewrite(folder, **change)
    assert verify(folder).problems == ["manifest.json: changed, or of an earlier version"]
    rewrite(folder, content=None)
    assert not verify(folder).intact


def test_an_entry_that_is_gone_with_its_file(folder):
    (folder / "README.md").unlink()
    files = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["files"]
    rewrite(folder, files={name: digest for name, digest in files.items() if name != "README.md"})
    assert verify(folder).problems == ["manifest.json: changed, or of an earlier version"]


def test_a_forged_hash_of_the_weights_contradicts_the_digests_of_the_rows(folder):
    change(folder, WORDS, [7])
    rewrite(folder, forge=True)
    shown = f"1 input rows: {named(folder, 7)}"
    assert verify(folder).problems == [f"rows.npy: of other weights than those here, {shown}"]
    np.save(folder / "rows.npy", np.zeros(3, np.uint64))
    rewrite(folder, forge=True)
    assert "expected 3 rows of input, bias" in verify(folder).summary()


def test_a_digest_that_was_kept_elsewhere_tells_a_forgery(folder, capsys):
    digest = verify(folder).digest
    main(["verify", str(folder), "--digest", digest])
    assert f"intact, {verify(folder).files} files; digest {digest}" in capsys.readouterr().out
    (folder / "README.md").write_text("forged", encoding="utf-8")
    rewrite(folder, forge=True)
    assert verify(folder).intact
    (problem,) = verify(folder, digest=digest).problems
    assert problem == f"manifest.json: expected the digest {digest}, found {verify(folder).digest}"


@pytest.mark.parametrize("target", ["manifest.json", "nothing", "."], ids=["file", "dangling", "folder"])
def test_links_are_told(folder, target):
    (folder / "more").symlink_to(target)
    assert verify(folder).problems == ["more: not in the manifest"]
    (folder / "more").unlink()
    (folder / "README.md").unlink()
    (folder / "README.md").symlink_to(target)
    assert verify(folder).problems == ["README.md: changed"]


def test_padded_rows_and_the_manifest(bundles, tmp_path):
    export(bundles["bert"], "mean", tmp_path / "out", pad_to_multiple_of=64)
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["rows"] == ["input", "bias"]
    digests = np.load(tmp_path / "out" / "rows.npy")
    assert digests.shape[0] % 64 == 0
    assert digests.shape[1] == 2
    assert verify(tmp_path / "out").intact


def test_digests_tell_rows_and_sides_apart():
    rows = np.arange(12, dtype=np.float32).reshape(4, 3)
    tied = row_digests(Vocabulary(rows, rows, None, True))
    assert list(tied) == ["input"]
    assert len(set(tied["input"].tolist())) == 4
    untied = row_digests(Vocabulary(rows, rows[::-1], rows[:, 0], False))
    assert list(untied) == ["input", "output", "bias"]
    assert np.array_equal(untied["input"], untied["output"][::-1])


@pytest.mark.parametrize(("change", "found"), [
    ({"counts": -1}, "-1 as counts"), ({"counts": {"copied": "x"}}, "'x' as counts.copied"),
    ({"rows": ["input", 1]}, "1 as rows.1"), ({"rows": None}, "nothing as rows"), ({"files": {"a": 5}}, "5 as files.a"),
])  # fmt: skip
def test_a_manifest_that_is_none(folder, change, found):
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(InputError, match=rf"manifest\.json: expected the manifest of .*, found {found}"):
        verify(folder)


def test_digests_of_rows_that_are_none(folder):
    """With the manifest forged to fit."""
    path, rows = folder / "manifest.json", folder / "rows.npy"
    for write in (lambda file: None, lambda file: np.savez(file, a=np.zeros(3))):
        with rows.open("wb") as file:
            write(file)
        manifest = json.loads(path.read_text())
        manifest["files"]["rows.npy"] = sha256_file(rows)
        path.write_text(json.dumps(manifest))
        assert re.search(r"its rows cannot be read; .*rows\.npy: expected an array", verify(folder).summary())


def test_a_manifest_that_nobody_writes_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / MANIFEST)
    with pytest.raises(InputError, match=r"manifest\.json: expected a JSON file here, found none"):
        verify(tmp_path)
