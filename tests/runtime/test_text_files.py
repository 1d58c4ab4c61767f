import gzip

import pytest

from hyperofa.errors import InputError
from hyperofa.runtime import text_files
from hyperofa.runtime.text_files import in_pieces, read_lines, read_pairs


def test_lines_are_read_from_every_kind_of_file(tmp_path):
    (tmp_path / "a.txt").write_text(" one two \n\nthree\n", encoding="utf-8")
    (tmp_path / "b.tsv").write_text("eng\t1\tfour\n", encoding="utf-8")
    (tmp_path / "c.tsv.gz").write_bytes(gzip.compress("x\tfünf\n".encode()))
    assert read_lines([tmp_path / name for name in ("a.txt", "b.tsv", "c.tsv.gz")]) == [
        "one two",
        "three",
        "four",
        "fünf",
    ]
    (tmp_path / "bom.txt").write_bytes("\ufeffsix\n".encode())
    assert read_lines([tmp_path / "bom.txt"]) == ["six"]
    (tmp_path / "latin").write_bytes(b"f\xfcnf\n")
    with pytest.raises(InputError, match=r"text .*latin: expected UTF-8 text"):
        read_lines([tmp_path / "latin"])
    with pytest.raises(InputError, match=r"parallel .*a\.txt line 1: expected .* found no tab$"):
        read_pairs([tmp_path / "a.txt"])
    (tmp_path / "three.tsv").write_text("one\ttwo\tthree\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"three\.tsv line 1: expected .* found 2 tabs$"):
        read_pairs([tmp_path / "three.tsv"])


def test_an_archive_of_one_endless_line_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(text_files, "LONGEST_LINE", 1000)
    with gzip.open(tmp_path / "bomb.txt.gz", "wt") as file:
        file.write("short\n" + "a" * 10_000)
    with pytest.raises(InputError, match=r"bomb\.txt\.gz line 2: expected at most 1,000 characters, found more"):
        read_lines([tmp_path / "bomb.txt.gz"])


def test_long_lines_are_taken_in_pieces():
    assert in_pieces("one two three", 13) == ["one two three"]
    assert in_pieces("one two three", 8) == ["one two", "three"]
    assert in_pieces("a" * 7 + " b", 3) == ["aaa", "aaa", "a b"]
    assert in_pieces("a" + " " * 9 + "b", 3) == ["a", "b"]
