"""The cheapest way to cut a text into pieces: the dynamic programme of Viterbi that Unigram tokenizers use, too."""

from collections.abc import Callable


def cheapest_cut(
    text: str, price: Callable[[int, int], float | None], longest: int, unknown: float
) -> list[tuple[int, int]]:
    """Start and end of the pieces of a text that together cost least, in their order.

    Args:
        text: to cut.
        price: of the piece from a start to an end; `None` if that is no piece.
        longest: characters of a piece, at most.
        unknown: price of a character that belongs to no piece; it is left out.
    """
    costs, starts = [0.0], [-1]  # of the cheapest way to each place, and where its last piece starts: -1 for none
    for end in range(1, len(text) + 1):
        least, start = costs[end - 1] + unknown, -1
        for begin in range(max(0, end - longest), end):
            cost = price(begin, end)
            if cost is not None and costs[begin] + cost < least:
                least, start = costs[begin] + cost, begin
        costs.append(least)
        starts.append(start)
    found, end = [], len(text)
    while end > 0:
        if starts[end] >= 0:
            found.append((starts[end], end))
        end = starts[end] if starts[end] >= 0 else end - 1
    return found[::-1]
