"""YAML from anywhere: read if it is no larger than it looks, and says each thing once."""

import math
from collections.abc import Callable
from typing import Any

import yaml

_MOST = 100_000  # values; where an anchor is referred to, what it stands for counts again


def read_yaml(text: str, load: Callable[[str], Any] = yaml.safe_load) -> Any:
    """Read YAML, unless a key comes twice, of which the last would silently count, or it unpacks to ever more.

    Args:
        text: of it.
        load: reads what passes; makes no objects but plain data.

    Raises:
        YAMLError: it is none, or one of those.
    """
    try:
        if root := yaml.compose(text, Loader=yaml.SafeLoader):
            _check(root)
        return load(text)
    except RecursionError:
        raise yaml.YAMLError("it is nested too deeply") from None
    except (ValueError, AttributeError, OverflowError) as error:  # of a tag that its value does not fit: !!int x
        raise yaml.YAMLError(f"it has a value that cannot be read: {error}") from None


def _check(root: yaml.Node) -> None:
    sizes: dict[int, float] = {}

    def size(node: yaml.Node) -> float:
        if id(node) not in sizes:
            sizes[id(node)] = math.inf  # until its end: what an anchor in it that leads back to it has
            pairs = node.value if isinstance(node, yaml.MappingNode) else []
            _refuse_repeats([key for key, _ in pairs])
            parts = [part for pair in pairs for part in pair]
            parts += node.value if isinstance(node, yaml.SequenceNode) else []
            sizes[id(node)] = 1 + sum(map(size, parts))
        return sizes[id(node)]

    if size(root) > _MOST:
        raise yaml.YAMLError(f"it unpacks to more than {_MOST:,} values; are its anchors meant?")


def _refuse_repeats(keys: list[yaml.Node]) -> None:
    seen: set[str] = set()
    for key in keys:
        if isinstance(key, yaml.ScalarNode):
            if key.value in seen:
                raise yaml.YAMLError(f"line {key.start_mark.line + 1}: the key {key.value!r} was there already")
            seen.add(key.value)
