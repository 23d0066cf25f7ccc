"""Writes all synced data of one user to files: CSV, JSON lines, or a ledger for Beancount."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date
from enum import StrEnum
from pathlib import Path
from typing import TextIO
from uuid import UUID

from worker.crud import export as crud
from worker.errors import BadArgument, Refused
from worker.services.context import Context
from worker.services.export import beancount, delimited, json_lines
from worker.services.export.books import NOUNS, Advance, Books
from worker.services.linking.users import find_user


class Format(StrEnum):
    """Formats of an export."""

    CSV = "csv"
    JSONL = "jsonl"
    BEANCOUNT = "beancount"


def format_named(given: str) -> Format:
    """The format with this name.

    Raises:
        BadArgument: there is none.
    """
    try:
        return Format(given)
    except ValueError:
        raise BadArgument(f"no format is named {given}; there are {', '.join(Format)}. Nothing was written") from None


Begin = Callable[[int], Advance]
"""Is told the number of rows, and returns the function that is told how many more were written."""


async def export(
    runtime: Context, *, user: str, format_: Format, output: str, since: date | None, force: bool, begin: Begin
) -> dict[str, int]:
    """Writes the data of one user, all of it as it is at one moment.

    A file appears under its name only when it is complete. Only its owner can read it.

    Args:
        runtime: the process's runtime.
        format_: which format.
        begin: is called once, before the first row.
        user: e-mail address or id.
        output: a file, or for CSV a folder; `-` is the standard output, and not for CSV.
        since: leave out transactions, balances and days of positions before this day.
        force: replace what is there.

    Returns:
        The number of rows of each noun.

    Raises:
        BadArgument, NotFound: there is no such user, or CSV was to go to the standard output.
        Refused: the output is already there, or its folder is not.
        Unavailable: Postgres is out of reach.
    """
    user_id = await find_user(runtime, user, create=False)
    if format_ is Format.CSV and output == "-":
        raise BadArgument("CSV has a file for each table: name a folder, for example --output export")
    if output != "-":
        _require_free(Path(output), force=force)
    return await asyncio.to_thread(_export, runtime, user_id, format_, output, since, begin)


def _require_free(path: Path, *, force: bool) -> None:
    if not path.parent.is_dir():
        raise Refused(f"there is no folder {path.parent}; nothing was written. Make it with: mkdir -p '{path.parent}'")
    if path.exists() and not force:
        raise Refused(f"{path} is already there and was kept; add --force to replace it")
    if path.is_dir() and {entry.name for entry in path.iterdir()} - {f"{noun}.csv" for noun in NOUNS}:
        raise Refused(f"{path} has other files than those of an export and was kept; name another folder")


def _export(
    runtime: Context, user_id: UUID, format_: Format, output: str, since: date | None, begin: Begin
) -> dict[str, int]:
    with runtime.transaction() as session:
        crud.snapshot(session)
        nouns = beancount.NOUNS if format_ is Format.BEANCOUNT else NOUNS
        advance = begin(sum(crud.count(session, noun, user_id=user_id, since=since) for noun in nouns))
        books = Books(session, user_id, since, advance)
        if format_ is Format.CSV:
            _write_folder(books, Path(output))
        else:
            write = json_lines.write if format_ is Format.JSONL else beancount.write
            with _opened(output) as file:
                write(books, file)
    return dict(books.written)


def _write_folder(books: Books, folder: Path) -> None:
    unfinished = _unfinished(folder)
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(mode=0o700)
    try:
        for noun in NOUNS:
            with _private(unfinished / f"{noun}.csv") as file:
                delimited.write(books.columns(noun), books.rows(noun), file)
        if folder.exists():
            shutil.rmtree(folder)
        unfinished.rename(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


@contextmanager
def _opened(output: str) -> Iterator[TextIO]:
    if output == "-":
        yield sys.stdout
        sys.stdout.flush()
        return
    unfinished = _unfinished(Path(output))
    unfinished.unlink(missing_ok=True)
    try:
        with _private(unfinished) as file:
            yield file
        unfinished.rename(output)
    finally:
        unfinished.unlink(missing_ok=True)


def _private(path: Path) -> TextIO:
    return open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8", newline="")


def _unfinished(path: Path) -> Path:
    return path.with_name(f".{path.name}.unfinished")


__all__ = ["Advance", "Format", "export", "format_named"]
