import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from hyperofa.cli import main
from hyperofa.errors import InputError
from hyperofa.presets import find_config, preset_names, use_presets
from tests.conftest import CONFIGS

ROOT = CONFIGS.parent


def test_every_config_is_a_preset():
    assert [CONFIGS / f"{name}.yaml" for name in preset_names()] == sorted(CONFIGS.rglob("*.yaml"))
    for name in preset_names():
        assert Path(find_config(name)).read_bytes() == (CONFIGS / f"{name}.yaml").read_bytes()


def test_a_file_comes_before_a_preset(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert Path(find_config("fit")) != Path("fit")
    Path("fit").write_text("{}")
    assert find_config("fit") == "fit"
    assert find_config("nowhere/fit.yaml") == "nowhere/fit.yaml"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["fit", "--data.bundle", "b"], ["fit", "--config", "FIT", "--data.bundle", "b"]),
        (["fit", "--config", "fit", "--config=tokens"], ["fit", "--config", "FIT", "--config=TOKENS"]),
        (["export", "--method", "mean"], ["export", "--method", "mean"]),
        (["test", "--config"], ["test", "--config"]),
        ([], []),
    ],
)
def test_names_become_paths(words, expected):
    paths = {"FIT": find_config("fit"), "TOKENS": find_config("tokens")}
    for name, path in paths.items():
        expected = [word.replace(name, path) for word in expected]
    assert use_presets(words) == expected


def test_a_wrong_name_is_told_the_nearest(capsys):
    with pytest.raises(InputError, match=r"one of the presets ablate, .*, found 'fitt'; did you mean fit\?"):
        find_config("fitt")
    with pytest.raises(SystemExit) as exit_info:
        main(["config", "show", "paper/xlmr"])
    assert exit_info.value.code == 2
    assert "did you mean paper/xlmr-" in capsys.readouterr().err


def test_presets_are_listed_and_shown(capsys):
    main(["config", "list"])
    listed = capsys.readouterr().out
    assert all(f"\n{name} " in f"\n{listed}" for name in (*preset_names(), "cluster.sbatch"))
    main(["config", "show", "tokens"])
    assert yaml.safe_load(capsys.readouterr().out) == yaml.safe_load((CONFIGS / "tokens.yaml").read_text("utf-8"))


@pytest.mark.slow
def test_the_wheel_alone_is_enough(tmp_path):
    """Built, unpacked and used from another folder."""
    source = tmp_path / "source"
    source.mkdir()
    for name in ("hyperofa", "configs"):
        shutil.copytree(ROOT / name, source / name, symlinks=True)
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    build = [*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(tmp_path / "dist"), str(source)]
    subprocess.run(build, check=True, cwd=tmp_path, timeout=300)
    (wheel,) = (tmp_path / "dist").iterdir()
    site = tmp_path / "site"
    subprocess.run([*pip, "install", "--no-deps", "--target", str(site), str(wheel)], check=True, timeout=300)
    environment = {**os.environ, "PYTHONPATH": str(site)}

    def hyperofa(*words: str) -> subprocess.CompletedProcess:
        command = [sys.executable, "-P", "-m", "hyperofa", *words]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)

    assert hyperofa("config", "list").stdout.count("\n") == len(preset_names()) + 1
    assert hyperofa("config", "show", "paper/xlmr-100").returncode == 0
    done = hyperofa("fit", "--data.bundle", "nowhere")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("hyperofa: ")
    assert "nowhere" in done.stderr
