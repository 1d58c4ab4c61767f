"""The command line: own commands are typed functions, training commands are Lightning's.

What a command needs is imported once its command line is known to be right: torch and transformers take seconds.
"""

import codecs
import errno
import io
import locale
import os
import re
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from hyperofa.closing import close
from hyperofa.commands import COMMANDS, SUBJECTS, TRAINING_COMMANDS
from hyperofa.errors import InputError, did_you_mean
from hyperofa.help import command_help, overview, training_help
from hyperofa.runtime.calls import command_line
from hyperofa.signatures import read_signature, read_summary

_GROUPS = {name.partition(" ")[0] for name in COMMANDS if " " in name}
_FULL = (os.strerror(errno.ENOSPC), os.strerror(errno.EDQUOT))
_NO_MEMORY = re.compile(  # as torch (of either memory), numpy, Python, the system and C++ say it
    r"(?i)(out of|not enough|(can't|cannot) allocate) memory|unable to allocate|start new thread|map segment|bad_alloc"
)
_SHOWN = 200  # characters
_TRACEBACK = "HYPEROFA_TRACEBACK"  # environment variable
_WITHOUT_FLAGS = {
    "verify": ["--model"],
    "config": ["--action", "--name"],
    "completion": ["--shell"],
}  # what words without a flag are, in order


def main(args: Sequence[str] | None = None) -> None:
    """Run one command.

    Args:
        args: command and flags; those of the process if not given.

    Whatever ends it early, a mistake of the user, the system or a library, is told in one line on standard error, with
    exit code 2. Exit code 1 is kept for what `verify` found changed.
    """
    if args is None:
        _begin_in_utf8()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal may know ASCII alone
    words = list(sys.argv[1:] if args is None else args)
    group = words[0] if words and words[0] in _GROUPS else ""
    rest = words[1:] if group else words
    if not rest or rest[0] in ("-h", "--help"):
        (sys.stdout if rest else sys.stderr).write(_overview(group))
        sys.exit(0 if rest else 2)
    if not {"-h", "--help"}.isdisjoint(words):
        words = _help(words)

    from hyperofa.class_paths import restrict_class_paths
    from hyperofa.flags import check_configs, check_given
    from hyperofa.presets import use_presets
    from hyperofa.runtime.processes import bars_on_terminals, is_first_process
    from hyperofa.runtime.trust import take_remote_code_flag

    began, path = time.monotonic(), None
    try:
        with command_line(words), bars_on_terminals():
            words = use_presets(take_remote_code_flag(restrict_class_paths(words))) or [""]
            check_given(words)
            check_configs(words)
            if words[0] in TRAINING_COMMANDS:
                from hyperofa import training_commands

                path, kind = training_commands.run(words), None
            else:
                result = _run_own(words)
                path, kind = getattr(result, "path", None), getattr(result, "kind", None)
                _show(result)
                if words[0] == "prepare":
                    _diagnose(result)
            if is_first_process():
                close(" ".join(words[:2]) if group else words[0], path, time.monotonic() - began, kind)
    except (KeyboardInterrupt, SystemExit) as end:
        if not any(isinstance(each, KeyboardInterrupt) for each in _chain(end)):  # Lightning makes an exit of it
            raise
        sys.stderr.write("hyperofa: interrupted\n")
        sys.exit(128 + signal.SIGINT)  # as shells say it
    except BaseException as error:  # what fails in the Rust of a library is no Exception
        reason = _reason(error)
        if reason is None or os.environ.get(_TRACEBACK):
            traceback.print_exc()
        else:
            sys.stderr.write(f"hyperofa: {' '.join(reason.split())}\n")
        sys.exit(2)


def _begin_in_utf8() -> None:
    """Begin again in Python's UTF-8 mode where the locale has another encoding: files, and names of them, are UTF-8.

    Libraries open files as the locale has it, so this is the one way to have all of them read the same.
    """
    other = codecs.lookup(locale.getencoding()).name != "utf-8"
    if other and not sys.flags.utf8_mode and os.name == "posix":
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])


def _reason(error: BaseException) -> str | None:
    """What to say of an error in one line; `None` for one that is a fault of this package.

    The system and the libraries that a stage calls know best what is wrong with a file or a setting, so theirs is
    said as it is. What our own code raises, and did not mean to, is a fault.
    """
    for found in _chain(error):  # what was made of them may blame a file
        if isinstance(found, MemoryError) or _NO_MEMORY.search(str(found)):
            said = " ".join(str(found).split())[:_SHOWN]
            return f"not enough memory{said and f' ({said})'}; give this command more, or smaller input or batches"
    if isinstance(error, InputError):
        return error.with_flags
    for full in _FULL:
        if full in str(error):  # of libraries, also of those that are not written in Python
            return f"{full}; make room where this command writes, or give an --output elsewhere"
    if isinstance(error, OSError) and error.strerror:
        names = [str(name) for name in (error.filename, error.filename2) if name is not None]
        return ": ".join([*names[:1], error.strerror])
    frames = [frame.f_globals.get("__name__", "") for frame, _ in traceback.walk_tb(error.__traceback__)]
    ours = frames and frames[-1].partition(".")[0] == __package__
    if ours and type(error).__module__ == "builtins" and type(error) is not Exception:
        return None
    said = str(error).strip() or "no reason given"
    return f"{said} ({type(error).__name__}; {_TRACEBACK}=1 shows where)"


def _chain(error: BaseException) -> Iterator[BaseException]:
    """What an error came from, first things first, and it."""
    if error.__context__ is not None:
        yield from _chain(error.__context__)
    yield error


def _overview(group: str) -> str:
    """What `hyperofa --help` says, or `hyperofa GROUP --help` of the commands of one kind."""
    about = {**{name: read_summary(command) for name, command in COMMANDS.items()}, **TRAINING_COMMANDS}
    subjects = {
        heading: {name: about[name] for name in names if name.startswith(f"{group} " if group else "")}
        for heading, names in SUBJECTS.items()
    }
    return overview({heading: commands for heading, commands in subjects.items() if commands})


def _help(words: list[str]) -> list[str]:
    """Say what a command takes, and end; but for `fit --help all`, which is Lightning's to answer.

    Args:
        words: the command line.

    Returns:
        What Lightning is to be told, or all words where there is no such command.
    """
    name, asked = _command(words), next(place for place, word in enumerate(words) if word in ("-h", "--help"))
    if name in TRAINING_COMMANDS and words[asked + 1 : asked + 2] == ["all"]:
        return [name, "--help"]
    if name in COMMANDS or name in TRAINING_COMMANDS:
        own = name in COMMANDS
        sys.stdout.write(command_help(name, COMMANDS[name]) if own else training_help(name, TRAINING_COMMANDS[name]))
        sys.exit(0)
    return words


def _command(words: list[str]) -> str:
    """The command's name, of two words where it is one of a kind."""
    return " ".join(words[: 1 + (words[0] in _GROUPS)])


def _run_own(words: list[str]) -> Any:
    """Run a command of our own; its result."""
    name = _command(words)
    if name not in COMMANDS:
        known = [*COMMANDS, *TRAINING_COMMANDS]
        near = did_you_mean(name, known)
        raise InputError(f"expected one of the commands {', '.join(known)}, found {name!r}{near}")
    for place, flag in enumerate(_WITHOUT_FLAGS.get(name, [])):
        if len(words) <= 2 * place + 1 or words[2 * place + 1].startswith("-"):
            break
        words = [*words[: 2 * place + 1], flag, *words[2 * place + 1 :]]

    from jsonargparse import auto_cli

    from hyperofa.flags import Parser, gather_lists

    signature = read_signature(COMMANDS[name])
    options: dict[str, Any] = {"parser_class": Parser, "as_positional": False, "allow_abbrev": False}
    options |= {"args": gather_lists(words[len(name.split()) :], {"": signature}), "prog": f"hyperofa [options] {name}"}
    module, _, function = COMMANDS[name].partition(":")
    if module not in sys.modules:
        auto_cli(signature, **options)  # ends here at --help or a mistake
    command = getattr(import_module(module), function)
    warnings.formatwarning = _in_a_line(warnings.formatwarning)
    return auto_cli(command, **options)


def _in_a_line(otherwise: Callable[..., str]) -> Callable[..., str]:
    """How to write warnings: those of this package without the line of code that they come from.

    Args:
        otherwise: writes the others.
    """

    def write(message: Warning | str, category: type[Warning], filename: str, *place: Any) -> str:
        if Path(filename).is_relative_to(Path(__file__).parent):
            return f"hyperofa: warning: {message}\n"
        return otherwise(message, category, filename, *place)

    return write


def _diagnose(bundle: Any) -> None:
    """Say in short what the rows of a bundle will be, and what could be better."""
    from hyperofa.inspection.doctor import diagnose
    from hyperofa.runtime.processes import is_first_process

    if is_first_process():
        sys.stdout.write(f"{diagnose(bundle).short()}\n")


def _show(result: Any) -> None:
    """Print what a command returned, once for all processes of a job; exit code 1 for what was changed."""
    from hyperofa.runtime.processes import is_first_process

    if result is not None and is_first_process():
        sys.stdout.write(f"{result.summary() if hasattr(result, 'summary') else result}\n")
        if getattr(result, "intact", True) is False:
            sys.exit(1)
