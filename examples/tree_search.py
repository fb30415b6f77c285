"""Queens on a chessboard: calls that make calls, to any depth.

How many ways are there to place N queens so that none attacks another? Each call tries the free
columns of one row. Down to `--depth` rows, it makes a call for each column and waits for it; below
that, it counts by itself, because a call should take a millisecond or more.

    rscoop run examples/tree_search.py --queens 12 --depth 3

A call that waits does not occupy its worker: the worker runs other calls, so the tree may be deeper
than there are workers. If a waiting call dies with its worker, it is started again on another one and
gets the results of its finished calls from the journal.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass

from resilient_scoop import futures


@dataclass(frozen=True, slots=True)
class Board:
    """A board whose first rows hold a queen each; the masks say which columns they attack."""

    size: int
    row: int = 0
    columns: int = 0
    falling: int = 0
    rising: int = 0

    def next_boards(self) -> Iterator[Board]:
        """Yield the board after each way to place a queen in the next row, from the right."""
        free = ~(self.columns | self.falling | self.rising) & ((1 << self.size) - 1)
        while free:
            queen = free & -free
            free ^= queen
            yield Board(
                self.size,
                self.row + 1,
                self.columns | queen,
                (self.falling | queen) >> 1,
                (self.rising | queen) << 1,
            )


def count_alone(board: Board) -> int:
    """Return in how many ways the board can be filled, without help."""
    if board.row == board.size:
        return 1
    return sum(map(count_alone, board.next_boards()))


def count(board: Board, depth: int) -> int:
    """Return in how many ways the board can be filled; the next `depth` rows are spread out."""
    if depth == 0 or board.row == board.size:
        return count_alone(board)
    children = [futures.submit(count, child, depth - 1) for child in board.next_boards()]
    return sum(child.result() for child in children)


def main() -> None:
    """Parse the command line, count, print what each first move leads to."""
    parser = argparse.ArgumentParser(description="Count the solutions of the N queens problem.")
    parser.add_argument("--queens", type=int, default=11)
    parser.add_argument("--depth", type=int, default=2, help="rows whose columns are calls")
    options = parser.parse_args()

    board = Board(options.queens)
    below = max(options.depth - 1, 0)
    first = [futures.submit(count, child, below) for child in board.next_boards()]
    solutions = [future.result() for future in first]
    for column, ways in enumerate(solutions):
        print(f"first queen in column {column:2d}: {ways}")
    print(f"{options.queens} queens: {sum(solutions)} solutions")


if __name__ == "__main__":
    main()
