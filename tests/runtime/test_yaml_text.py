import pytest
import yaml

from hyperofa.runtime.yaml_text import read_yaml

LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n + 1}: &a{n + 1} [{', '.join([f'*a{n}'] * 9)}]\n" for n in range(9)
)
MERGED = "a0: &a0 {x: 1}\n" + "".join(f"a{n + 1}: &a{n + 1} {{<<: [{', '.join([f'*a{n}'] * 9)}]}}\n" for n in range(9))


@pytest.mark.parametrize("text", [LAUGHS, MERGED, "a: &a [*a]\n", "a: &a {b: *a}\n", "a: &a {<<: *a}\n"])
def test_what_unpacks_to_ever_more_is_refused(text):
    with pytest.raises(yaml.YAMLError, match=r"unpacks to more than 100,000 values; are its anchors meant\?"):
        read_yaml(text)


@pytest.mark.parametrize("text", ["!!int x", "!!float x", "!!timestamp x", "2020-13-45", "9" * 5000])
def test_a_value_that_cannot_be_made(text):
    with pytest.raises(yaml.YAMLError, match="it has a value that cannot be read: "):
        read_yaml(f"a: {text}\n")


def test_what_is_nested_too_deeply():
    with pytest.raises(yaml.YAMLError, match="it is nested too deeply"):
        read_yaml("[" * 5000)


def test_anchors_serve():
    assert read_yaml("a: &a {x: 1, y: 2}\nb: {<<: *a, x: 3}\nc: [*a, *a]\n")["b"] == {"x": 3, "y": 2}


@pytest.mark.parametrize("text", ["a: 1\nb: 2\na: 3\n", "b: {a: 1, a: 2}\n", "- b: [{a: 1, a: 2}]\n"])
def test_keys_that_come_twice(text):
    with pytest.raises(yaml.YAMLError, match=r"line \d: the key 'a' was there already"):
        read_yaml(text)
