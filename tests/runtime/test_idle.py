"""A setting that nothing would read is told by its flag, wherever one is given."""

import pytest

from hyperofa.cli import main
from hyperofa.errors import InputError
from hyperofa.export.checks import check_options
from hyperofa.export.initialise import initialise
from hyperofa.methods.baselines import TUNED_OFA, OFAConfig
from hyperofa.methods.registry import METHODS, method_named, register_method
from hyperofa.runtime.idle import Use, changed_settings, check_read, unread

SHARE = "--method ofa_tuned, or hyperofa and an --ofa_share"
FILE = "a file as --output, as a store keeps words apart"


def function(one: int, two: int = 2, mixing: OFAConfig = TUNED_OFA, files: tuple[str, ...] | None = None) -> None:
    """Summary."""


def test_changed_settings():
    same = {"one": 1, "two": 2, "mixing": OFAConfig(), "files": []}
    assert changed_settings(function, same) == {}
    others = {"one": 1, "two": 3, "mixing": OFAConfig(neighbours=5), "files": ["a", "b"]}
    changed = changed_settings(function, others)
    assert changed == {"two": 3, "mixing.neighbours": 5, "files": ["a", "b"]}
    said = [error.with_flags for error in unread(changed, Use(("mixing", "files"), False, "with --x"), prefix="y.")]
    assert said == [
        "--y.mixing.neighbours: expected none but with --x, found 5; leave it out, as nothing would read it",
        "--y.files: expected none but with --x, found a b; leave it out, as nothing would read it",
    ]
    check_read(function, others, Use(("mixing",), True, "with --x"))
    with pytest.raises(InputError, match="two: expected none but with x, found 3"):
        check_read(function, others, Use(("two",), False, "with --x"))


def test_every_method_reads_what_it_says():
    """Of all methods; `None` is a share, that which does best."""
    for name, method in METHODS.items():
        for options in ({"mixing": OFAConfig(neighbours=4)}, {"parallel": ["a.tsv"]}, {"ofa_share": None}):
            reads = set(options) <= {*method.reads, *(["ofa_share"] if name == "hyperofa" else [])}
            if reads:
                check_options(method, **options)
            else:
                with pytest.raises(InputError, match=f"{next(iter(options))}.*: expected none but with method="):
                    check_options(method, **options)
    check_options(method_named("hyperofa"), ofa_share=0.5, mixing=OFAConfig(neighbours=4))


def test_a_method_of_ones_own_may_read_all(bundles):
    register_method("own", METHODS["mean"].rows, about="the mean, under another name")
    try:
        made = initialise(bundles["bert"], "own", mixing=OFAConfig(neighbours=4))
        assert made.counts() == initialise(bundles["bert"], "mean").counts()
    finally:
        del METHODS["own"]


@pytest.mark.parametrize(
    ("line", "flag", "where"),
    [
        ("export --bundle {bert} --method ofa --mixing.neighbours 5", "mixing.neighbours", SHARE),
        ("export --bundle {bert} --method ofa --ofa_share null", "ofa_share", "--method hyperofa"),
        ("export --bundle {bert} --method mean --parallel {text}", "parallel", "--method transtokenizer"),
        ("expand --source_model {model} --words {text} --min_pieces 4", "min_pieces", "words to be mined"),
        ("vectors train --text eng={text} deu={text} --aligned true --epochs 3", "epochs", "--method fasttext"),
        ("vectors train --text eng={text} --into {vectors} --dim 4", "dim", "--into"),
        ("vectors convert --vectors {vectors} --prefixes false", "prefixes", FILE),
        ("vectors merge --vectors {vectors} --prefixes false", "prefixes", FILE),
        ("pretrain --model {model} --text {text} --new_rows [3]", "new_rows", "--training.new_steps"),
        ("pretrain --model {model} --text {text} --evaluation.layer 2", "evaluation.layer", "--evaluation.data or"),
        ("hewitt {hewitt} --methods mean --epochs 3", "epochs", "hyperofa among --methods, and no --checkpoint"),
        ("hewitt {hewitt} --training.save_every 20", "training.save_every", "`hyperofa pretrain`"),
        ("ablate --slurm true --jobs 3", "jobs", "--gpus, --print_commands and --slurm"),
    ],
)
def test_commands(line, flag, where, bundles, model_folders, text_file, vector_file, tmp_path, capsys):
    model = model_folders["bert"]
    hewitt = f"--source_model {model} --text {text_file} --vectors {vector_file}"
    words = line.format(bert=bundles["bert"], model=model, text=text_file, vectors=vector_file, hewitt=hewitt).split()
    with pytest.raises(SystemExit, match="2"):
        main([*words, "--output", str(tmp_path / "made")])
    said = capsys.readouterr().err
    assert f"hyperofa: --{flag}: expected none but " in said
    assert where in said
    assert "leave it out, as nothing would read it" in said
    assert not list(tmp_path.iterdir())


def test_an_ablation_tells_it_before_any_cell_runs(model_folders, tokenizer_folders, vector_file, tmp_path):
    from hyperofa.experiments.ablate import ablate

    inputs = {"source_model": str(model_folders["bert"]), "target_tokenizer": str(tokenizer_folders["unigram"])}
    with pytest.raises(InputError, match=r"methods: OFA: export: mixing\.neighbours: expected none but"):
        ablate(
            tmp_path / "ablation",
            prepare={**inputs, "vectors": [str(vector_file)]},
            export={"mixing.neighbours": 5},
            methods={"OFA": {"export.method": "ofa"}, "tuned": {"export.method": "ofa_tuned"}},
        )
    assert not list(tmp_path.iterdir())
