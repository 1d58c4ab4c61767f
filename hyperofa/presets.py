"""The files of `configs/`, which travel with the package and are known by their names: `--config fit`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from hyperofa.errors import InputError, did_you_mean

FOLDER = Path(__file__).parent / "configs"
_DEFAULTS = {"fit": "fit"}  # preset of a command that is given none


def preset_names() -> list[str]:
    """The names that `--config` knows, sorted: `ablate`, `fit`, `paper/xlmr-100`, and so on."""
    return sorted(path.relative_to(FOLDER).with_suffix("").as_posix() for path in FOLDER.rglob("*.yaml"))


def find_config(name: str) -> str:
    """The file that `--config NAME` means.

    Args:
        name: a file, or the name of a preset; a file of that name comes first.

    Returns:
        Its path. What looks like a path comes back as it is, whether there is a file or not.

    Raises:
        InputError: a name that is neither.
    """
    path = Path(name)
    if path.is_file() or path.suffix or path.is_absolute() or not name:
        return name
    if name in preset_names():
        return str(FOLDER / f"{name}.yaml")
    raise _unknown(name, "--config")


def use_presets(words: Sequence[str]) -> list[str]:
    """Put files in the place of presets' names.

    Args:
        words: the command line.

    Returns:
        The same with a path after each `--config`; with the command's own preset if it has one and no `--config`.

    Raises:
        InputError: a name that is neither a file nor a preset.
    """
    found = list(words)
    flags = [number for number, word in enumerate(found) if word.partition("=")[0] == "--config"]
    for number in flags:
        flag, equals, name = found[number].partition("=")
        if equals:
            found[number] = f"{flag}={find_config(name)}"
        elif number + 1 < len(found):
            found[number + 1] = find_config(found[number + 1])
    if not flags and found and found[0] in _DEFAULTS:
        found[1:1] = ["--config", find_config(_DEFAULTS[found[0]])]
    return found


def config(action: Literal["list", "show"] = "list", name: str | None = None) -> str:
    """List the settings that come with the package, or print one as a file to start from.

    Args:
        action: `list` or `show`.
        name: what to show: a preset, or `cluster.sbatch`, a job for SLURM.

    Returns:
        Names with their first lines, or the text of the file.

    Raises:
        InputError: there is nothing to show by that name.
    """
    files = {each: FOLDER / f"{each}.yaml" for each in preset_names()}
    files |= {path.name: path for path in sorted(FOLDER.glob("*.sbatch"))}
    if action == "list":
        width = max(map(len, files))
        return "\n".join(f"{each:<{width}}  {_summary(path)}" for each, path in files.items())
    if name not in files:
        raise _unknown(name or "", "--name")
    return files[name].read_text(encoding="utf-8").rstrip()


def _unknown(name: str, flag: str) -> InputError:
    names = preset_names()
    return InputError(
        f"{flag}: expected {'a file or ' if flag == '--config' else ''}one of the presets "
        f"{', '.join(names)}, found {name!r}{did_you_mean(name, names)}"
    )


def _summary(path: Path) -> str:
    """The first line of a file's comment."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return next(line for line in lines if not line.startswith("#!")).removeprefix("#").strip()
