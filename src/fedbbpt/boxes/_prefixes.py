"""Which beginnings that rows of tokens share are run once for all of them.

A causal model's states at a token depend on the tokens before it alone, so what rows have in
common at their beginning need not be run for each. Where the prompt stands in front, the rows of
one prompt share it; where it stands behind, all candidates share the text.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence

import numpy as np

from fedbbpt.arrays import Array
from fedbbpt.boxes._causal import Network, Row, State
from fedbbpt.boxes._transformers import Inputs, batches

PASS = 64
"""Tokens that cost as much as one more forward pass. On a CPU a pass costs a few tokens, on a GPU
with a small model hundreds."""


def plan(
    contents: Sequence[Array], groupings: Sequence[Sequence[Hashable]], size: int
) -> list[tuple[list[int], list[Array]]]:
    """Where to cut rows, so that the fewest tokens are run.

    Args:
        contents: per row its tokens (L,) as numbers that are equal where the network's inputs are.
        groupings: ways to group rows that may share more than all do; each a key for every row.
        size: most rows in a forward pass.

    Returns:
        parts of all rows: positions of its rows, and one array (rows,) of cuts for each level of
        shared beginnings, rising from level to level and below the row's length.
    """
    count = len(contents)
    common = _shared(contents, [0] * count)
    grouped = [_shared(contents, keys) for keys in groupings]
    options: list[list[Array]] = [[], [common], *([cut] for cut in grouped)]
    options += [[common, cut] for cut in grouped]
    return min(
        (_parts(levels, count) for levels in options),
        key=lambda parts: sum(_cost(contents, rows, cuts, size) for rows, cuts in parts),
    )


class Walk:
    """From beginning to beginning down to the rows.

    Args:
        levels: per level where each row's beginning ends.
        found: (C,) scores by row, added to.
    """

    def __init__(
        self,
        network: Network,
        rows: Sequence[Row],
        levels: Sequence[Array],
        size: int,
        wanted: set[int],
        found: dict[int, Array],
    ) -> None:
        self.network, self.rows, self.levels = network, rows, levels
        self.size, self.wanted, self.found = size, wanted, found
        self.contents = [row.content for row in rows]

    def go(self, members: Sequence[Sequence[int]], level: int, past: State | None) -> None:
        """Run the next tokens of rows whose beginnings are in ``past``.

        Args:
            members: for each row of ``past`` the rows that begin with it.
        """
        cut = self.levels[level] if level < len(self.levels) else None
        nodes = [
            (parent, group)
            for parent, rows in enumerate(members)
            for group in _branches(self.contents, rows, cut)
        ]
        rests = [self._rest(group[0], level) for _, group in nodes]
        asked = [n for n, (_, group) in enumerate(nodes) if not self.wanted.isdisjoint(group)]
        for batch in batches(range(len(nodes)), lambda n: len(rests[n][0]), self.size, asked):
            parents = [nodes[n][0] for n in batch]
            some, groups = [rests[n] for n in batch], [nodes[n][1] for n in batch]
            if cut is None:
                rows = [self.rows[group[0]] for group in groups]
                scores = self.network.score(rows, some, past, parents, self.size)
                self.found.update(zip((group[0] for group in groups), scores, strict=True))
            else:
                self.go(groups, level + 1, self.network.extend(some, past, parents))

    def _rest(self, row: int, level: int) -> Inputs:
        """What of a row's inputs belongs to a level."""
        (ids, places, soft), content, _ = self.rows[row]
        begin = int(self.levels[level - 1][row]) if level else 0
        end = int(self.levels[level][row]) if level < len(self.levels) else len(content)
        if places is None or soft is None:
            return ids[begin:end], None, None
        inside = (places >= begin) & (places < end)
        return ids[begin:end], places[inside] - begin, soft[inside]


def _branches(
    contents: Sequence[Array], rows: Sequence[int], cut: Array | None
) -> Iterator[list[int]]:
    """The rows in groups that are equal up to the cut; without a cut each by itself."""
    if cut is None:
        yield from ([row] for row in rows)
        return
    groups: dict[bytes, list[int]] = {}
    for row in rows:
        groups.setdefault(contents[row][: cut[row]].tobytes(), []).append(row)
    yield from groups.values()


def _shared(contents: Sequence[Array], keys: Sequence[Hashable]) -> Array:
    """Per row how many first tokens all rows of its key have in common; one token stays out."""
    first: dict[Hashable, Array] = {}
    shared: dict[Hashable, int] = {}
    for key, row in zip(keys, contents, strict=True):
        start = first.setdefault(key, row)
        length = min(shared.get(key, len(row)), len(row) - 1)
        differ = np.flatnonzero(start[:length] != row[:length])
        shared[key] = int(differ[0]) if len(differ) else length
    return np.array([shared[key] for key in keys], np.int64)


def _parts(levels: list[Array], count: int) -> list[tuple[list[int], list[Array]]]:
    """Rows that every level carries further, and the rest, which share nothing."""
    steps = np.diff(np.array([np.zeros(count, np.int64), *levels]), axis=0)
    fits = (steps > 0).all(axis=0)
    parts = [(np.flatnonzero(fits).tolist(), levels), (np.flatnonzero(~fits).tolist(), [])]
    return [(rows, cuts) for rows, cuts in parts if rows]


def _cost(
    contents: Sequence[Array], rows: Sequence[int], levels: Sequence[Array], size: int
) -> int:
    """Tokens run, and what the passes cost."""
    total, done = 0, np.zeros(len(contents), np.int64)
    for cut in levels:
        heads = [group[0] for group in _branches(contents, rows, cut)]
        total += int((cut - done)[heads].sum()) + PASS * -(-len(heads) // size)
        done = cut
    rest = sum(len(contents[row]) - int(done[row]) for row in rows)
    return total + rest + PASS * -(-len(rows) // size)
