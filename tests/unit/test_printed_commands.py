"""Every command of ours that is printed, by the product or its documentation, can be pasted: it parses as it stands."""

from __future__ import annotations

import pytest

from tests.support.printed_commands import EXAMPLES, IN_BLOCKS, NAMED, PRINTED, name, parse

pytestmark = pytest.mark.deep


def test_something_was_collected() -> None:
    assert min(len(PRINTED), len(EXAMPLES), len(IN_BLOCKS), len(NAMED)) > 10


@pytest.mark.parametrize(("module", "line"), PRINTED)
def test_command_that_the_product_prints_parses(module: str, line: str) -> None:
    parse(line)


@pytest.mark.parametrize(("command", "line"), EXAMPLES)
def test_example_of_a_commands_help_parses(command: str, line: str) -> None:
    parse(line)


@pytest.mark.parametrize(("page", "line"), IN_BLOCKS)
def test_command_of_a_block_of_the_documentation_parses(page: str, line: str) -> None:
    parse(line)


@pytest.mark.parametrize(("page", "line"), NAMED)
def test_command_that_the_documentation_names_parses(page: str, line: str) -> None:
    name(line)
