"""Lists that stand-ins give in parts."""

from __future__ import annotations

import pytest

from worker.sandbox.continued import part


@pytest.mark.parametrize("count", [0, 1, 40, 41, 200])
def test_parts_have_all_rows_once_and_an_empty_one_is_between_them(count: int) -> None:
    rows, found, sizes, key = list(range(count)), list[int](), list[int](), None
    while (given := part(rows, 40, "login/account", key)) is not None:
        number, some, key = given
        assert number == len(sizes)
        found += some
        sizes.append(len(some))
        if key is None:
            break

    assert found == rows
    assert (0 in sizes) == (count > 40 or count == 0)


def test_key_is_good_for_its_list_alone() -> None:
    _, _, key = part(range(100), 40, "a", None) or (0, (), None)

    assert key is not None
    assert part(range(100), 40, "b", key) is None
    assert part(range(10), 40, "a", key) is None
    assert part(range(100), 40, "a", "nonsense") is None
