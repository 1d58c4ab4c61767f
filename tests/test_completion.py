"""A shell that has read what `hyperofa completion` prints knows commands, flags and values."""

import subprocess

import pytest

from hyperofa.completion import completion


@pytest.fixture(scope="module")
def complete(tmp_path_factory):
    """What bash offers for the last of some words."""
    script = tmp_path_factory.mktemp("completion") / "hyperofa.sh"
    script.write_text(completion(), encoding="utf-8")

    def offered(*words: str) -> list[str]:
        line = f'source {script}; COMP_WORDS=(hyperofa "$@"); COMP_CWORD=$#; _hyperofa; echo ${{COMPREPLY[@]}}'
        done = subprocess.run(["bash", "-uc", line, "bash", *words], capture_output=True, text=True, check=True)
        return done.stdout.split()

    return offered


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["ex"], ["export", "expand"]),
        (["vectors", ""], ["train", "align", "convert", "info", "merge"]),
        (["vectors", "align", "--d"], ["--dictionary"]),
        (["export", "--che"], ["--checkpoint"]),
        (["fit", "--data.te"], ["--data.text", "--data.text_languages"]),
        (["fit", "--config", "pap"], ["paper/roberta-100", "paper/roberta-200", "paper/roberta-400", "paper/xlmr-100",
                                      "paper/xlmr-200", "paper/xlmr-400"]),
        (["prepare", "--reference", "t"], ["true"]),
        (["config", "s"], ["show"]),
        (["config", "show", "fi"], ["fit"]),
        (["export", "--bundle", "no such"], []),
    ],
)  # fmt: skip
def test_what_bash_offers(complete, words, expected):
    assert complete(*words) == expected


def test_zsh_reads_the_same():
    assert completion("zsh").endswith(completion("bash"))
    assert "bashcompinit" in completion("zsh")
