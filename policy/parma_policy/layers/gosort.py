# SPDX-License-Identifier: Apache-2.0
"""The sort that fixes the order of extended attributes in a block.

The reference implementation sorts them with Go's ``sort.Slice`` and a comparison that is not transitive, so the
result depends on the algorithm: pattern-defeating quicksort as Go has it since 1.19. This is that algorithm, step
by step (layer format notes, section 7); only the order of comparisons and exchanges matters.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Generic, TypeVar

T = TypeVar("T")

_INSERTION_LIMIT: Final = 12
_NINTHER_FROM: Final = 50
_MAX_SWAPS: Final = 12
_MASK64: Final = (1 << 64) - 1


def sort(items: list[T], less: Callable[[T, T], bool]) -> None:
    """Sort ``items`` in place, in exactly the order that Go's ``sort.Slice`` gives for ``less``."""
    _Sorter(items, less).pdqsort(0, len(items), len(items).bit_length())


class _Sorter(Generic[T]):
    def __init__(self, items: list[T], less: Callable[[T, T], bool]) -> None:
        self._items = items
        self._less = less

    def less(self, i: int, j: int) -> bool:
        return self._less(self._items[i], self._items[j])

    def swap(self, i: int, j: int) -> None:
        items = self._items
        items[i], items[j] = items[j], items[i]

    def pdqsort(self, a: int, b: int, limit: int) -> None:
        balanced = partitioned = True
        while True:
            length = b - a
            if length <= _INSERTION_LIMIT:
                self._insertion(a, b)
                return
            if limit == 0:
                self._heap(a, b)
                return
            if not balanced:
                self._break_patterns(a, b)
                limit -= 1
            pivot, swaps = self._choose_pivot(a, b)
            increasing = swaps == 0
            if swaps == _MAX_SWAPS:
                self._items[a:b] = self._items[a:b][::-1]
                pivot = (b - 1) - (pivot - a)
                increasing = True
            if balanced and partitioned and increasing and self._partial_insertion(a, b):
                return
            if a > 0 and not self.less(a - 1, pivot):
                a = self._partition_equal(a, b, pivot)
                continue
            middle, partitioned = self._partition(a, b, pivot)
            left, right = middle - a, b - middle
            if left < right:
                balanced = left >= length // 8
                self.pdqsort(a, middle, limit)
                a = middle + 1
            else:
                balanced = right >= length // 8
                self.pdqsort(middle + 1, b, limit)
                b = middle

    def _insertion(self, a: int, b: int) -> None:
        for i in range(a + 1, b):
            j = i
            while j > a and self.less(j, j - 1):
                self.swap(j, j - 1)
                j -= 1

    def _heap(self, a: int, b: int) -> None:
        size = b - a
        for root in range((size - 1) // 2, -1, -1):
            self._sift_down(root, size, a)
        for last in range(size - 1, -1, -1):
            self.swap(a, a + last)
            self._sift_down(0, last, a)

    def _sift_down(self, root: int, size: int, first: int) -> None:
        while (child := 2 * root + 1) < size:
            if child + 1 < size and self.less(first + child, first + child + 1):
                child += 1
            if not self.less(first + root, first + child):
                return
            self.swap(first + root, first + child)
            root = child

    def _break_patterns(self, a: int, b: int) -> None:
        length = b - a
        state = length
        modulus = 1 << length.bit_length()
        middle = a + (length // 4) * 2
        for index in range(middle - 1, middle + 2):
            state ^= (state << 13) & _MASK64
            state ^= state >> 7
            state ^= (state << 17) & _MASK64
            other = state & (modulus - 1)
            if other >= length:
                other -= length
            self.swap(index, a + other)

    def _choose_pivot(self, a: int, b: int) -> tuple[int, int]:
        """(index, number of exchanges seen); ranges here always have more than 12 elements."""
        length = b - a
        swaps = 0

        def order(x: int, y: int) -> tuple[int, int]:
            nonlocal swaps
            if self.less(y, x):
                swaps += 1
                return y, x
            return x, y

        def median(x: int, y: int, z: int) -> int:
            x, y = order(x, y)
            y, z = order(y, z)
            x, y = order(x, y)
            return y

        i, j, k = (a + length // 4 * n for n in (1, 2, 3))
        if length >= _NINTHER_FROM:
            i, j, k = (median(x - 1, x, x + 1) for x in (i, j, k))
        return median(i, j, k), swaps

    def _partial_insertion(self, a: int, b: int) -> bool:
        """True when the range turned out to be nearly sorted and is sorted now."""
        i = a + 1
        for _ in range(5):
            while i < b and not self.less(i, i - 1):
                i += 1
            if i == b:
                return True
            if b - a < _NINTHER_FROM:
                return False
            self.swap(i, i - 1)
            if i - a >= 2:
                # Down to index 1 of the whole list, not of the range: that is how the original does it.
                for j in range(i - 1, 0, -1):
                    if not self.less(j, j - 1):
                        break
                    self.swap(j, j - 1)
            if b - i >= 2:
                for j in range(i + 1, b):
                    if not self.less(j, j - 1):
                        break
                    self.swap(j, j - 1)
        return False

    def _partition_equal(self, a: int, b: int, pivot: int) -> int:
        self.swap(a, pivot)
        i, j = a + 1, b - 1
        while True:
            while i <= j and not self.less(a, i):
                i += 1
            while i <= j and self.less(a, j):
                j -= 1
            if i > j:
                return i
            self.swap(i, j)
            i += 1
            j -= 1

    def _partition(self, a: int, b: int, pivot: int) -> tuple[int, bool]:
        self.swap(a, pivot)
        i, j = a + 1, b - 1
        already = True
        while True:
            while i <= j and self.less(i, a):
                i += 1
            while i <= j and not self.less(j, a):
                j -= 1
            if i > j:
                self.swap(j, a)
                return j, already
            already = False
            self.swap(i, j)
            i += 1
            j -= 1
