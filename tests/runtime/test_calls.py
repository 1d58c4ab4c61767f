"""What a folder says of its maker can be typed again."""

import shlex
from pathlib import Path

import hyperofa
from hyperofa.methods.baselines import OFAConfig
from hyperofa.runtime.calls import Call, command_line, one_call, written_call


def make(first, *, mixing=None, seed=0, text=()):
    """Stands for a public function."""
    return written_call(make, locals())


def test_a_call_leaves_out_what_it_does_not_change():
    assert make(Path("a folder"), seed=0) == Call("make('a folder')", "python")
    assert make("b", seed=3, text=["x", Path("y")]).text == "make('b', seed=3, text=['x', 'y'])"
    mixing = OFAConfig(neighbours=5)
    assert make("b", mixing=mixing).text == f"make('b', mixing={mixing!r})"
    assert eval(make("b", mixing=mixing).text) == make("b", mixing=mixing)


def test_a_command_line_is_written_as_it_was_typed():
    with command_line(["export", "--bundle", "a folder"]):
        assert make("b") == Call("hyperofa export --bundle 'a folder'", "sh")
    assert make("b").language == "python"


def test_where_a_folder_lies_does_not_change_it():
    for words in (["trim", "--output", "here", "--text", "a"], ["trim", "--output=here", "--text", "a"]):
        with command_line(words):
            assert shlex.split(make("b").text) == ["hyperofa", *(word.replace("here", "DIR") for word in words)]

    def write(text, output):
        return written_call(write, locals())

    assert write("a", Path("here")).text == write("a", Path("there")).text == "write('a', 'DIR')"


def test_what_a_call_makes_by_others_is_its_own():
    def outer(seed, output):
        with one_call(outer, locals()):
            return make("a temporary folder")

    assert outer(3, "here") == outer(3, "there") == Call("outer(3, 'DIR')", "python")
    assert make("b").text == "make('b')"


def test_only_the_command_line_asks_what_was_typed():
    """In a notebook `sys.argv` is the kernel's."""
    package = Path(hyperofa.__file__).parent
    asking = {path.name for path in package.rglob("*.py") if "sys.argv" in path.read_text(encoding="utf-8")}
    assert asking == {"cli.py", "processes.py"}  # the latter in a program that a child process runs
