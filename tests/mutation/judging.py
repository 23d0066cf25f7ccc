"""Runs a file's unit tests against its mutants, each in a process forked for it, several at a time.

Starting pytest afresh for each mutant would cost seconds, nearly all of them imports. So each file has a process that
imports once what the file imports. From it one more is forked for every mutant: there the changed module takes its
place before the tests are imported, so that nothing has seen the unchanged one.
"""

from __future__ import annotations

import ast
import contextlib
import gc
import importlib
import importlib.util
import multiprocessing
import os
import resource
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path

import hypothesis
import pytest

from tests.mutation.mutants import Mutant, mutants

_CPU_SECONDS = 5
_SECONDS = 120
"""A mutant whose tests have not ended by then runs for ever and counts as killed; they take a second of CPU time."""

_MEMORY = 4 << 30

_HYPOTHESIS = hypothesis.settings(
    deadline=None,
    derandomize=True,
    max_examples=50,
    database=None,
    phases=(hypothesis.Phase.explicit, hypothesis.Phase.generate),
)

_FORK = multiprocessing.get_context("fork")
_NO_VERDICT = {pytest.ExitCode.INTERNAL_ERROR, pytest.ExitCode.USAGE_ERROR, pytest.ExitCode.NO_TESTS_COLLECTED}
# `--assert=plain`: nobody reads why a test failed. Plugins are not loaded, so their options are not known here.
_OPTIONS = ["-x", "-q", "--noconftest", "--capture=no", "--tb=no", "--assert=plain", "-p", "no:cacheprovider"]


class NoVerdictError(Exception):
    """The tests do not pass as the file stands, or could not be run."""


def judged(path: Path, tests: list[str], home: Path) -> Iterator[tuple[Mutant, bool]]:
    """Every mutant of a file, without its source, and whether the tests pass in spite of it.

    Args:
        path: the file, below the working directory, which is the project's.
        tests: paths of the test files that judge it.
        home: a directory for what the tests keep.

    Raises:
        NoVerdictError: the tests do not pass as the file stands, or could not be run.
    """
    receiving, sending = _FORK.Pipe(duplex=False)
    process = _FORK.Process(target=_send_all, args=(sending, path, tests, home))
    process.start()
    sending.close()
    try:
        while (found := receiving.recv()) is not None:
            if isinstance(found, str):
                raise NoVerdictError(found)
            yield found
    except EOFError:
        raise NoVerdictError(f"{path}: the process that judges it has ended") from None
    finally:
        process.terminate()
        process.join()


def _send_all(sending: Connection, path: Path, tests: list[str], home: Path) -> None:
    try:
        _import_what_is_imported(path)
        gc.freeze()  # pytest collects garbage five times at its end, which is most of a short session
        for mutant, survives in _verdicts(path, tests, home):
            sending.send((replace(mutant, source=""), survives))
        sending.send(None)
    except NoVerdictError as error:
        sending.send(str(error))


def _verdicts(path: Path, tests: list[str], home: Path) -> Iterator[tuple[Mutant, bool]]:
    unchanged = _started(path, path.read_text(), tests, home)
    unchanged.join()
    if unchanged.exitcode != pytest.ExitCode.OK:
        raise NoVerdictError(f"{path}: its tests do not pass as it stands; run: python -m pytest {' '.join(tests)}")
    running: dict[BaseProcess, tuple[Mutant, float]] = {}
    for mutant in mutants(path.read_text()):
        while len(running) >= (os.cpu_count() or 1):
            yield from _ended(running)
        running[_started(path, mutant.source, tests, home)] = mutant, time.monotonic()
    while running:
        yield from _ended(running)


def _ended(running: dict[BaseProcess, tuple[Mutant, float]]) -> Iterator[tuple[Mutant, bool]]:
    wait([process.sentinel for process in running], timeout=1)
    for process, (mutant, began) in list(running.items()):
        if process.exitcode is None:
            if time.monotonic() - began < _SECONDS:
                continue
            process.kill()
        process.join()
        del running[process]
        if process.exitcode in _NO_VERDICT:
            raise NoVerdictError(f"pytest ended with {process.exitcode} for line {mutant.line}: {mutant.after}")
        yield mutant, process.exitcode == pytest.ExitCode.OK


def _started(path: Path, source: str, tests: list[str], home: Path) -> BaseProcess:
    process = _FORK.Process(target=_judge, args=(path, source, tests, home))
    process.start()
    return process


def _judge(path: Path, source: str, tests: list[str], home: Path) -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    resource.setrlimit(resource.RLIMIT_CPU, (_CPU_SECONDS, _CPU_SECONDS))
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))  # `1 << 10**12` is a mutant too
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    code = int(pytest.ExitCode.TESTS_FAILED)
    with contextlib.suppress(Exception):  # what cannot even be imported fails every test
        _put_in_place(path, source)
        from tests.support.environment import isolate  # imports worker.settings, which may be what is judged

        isolate(home)
        os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
        # A counterexample is enough, it need not be a short one.
        hypothesis.settings.register_profile("mutation", _HYPOTHESIS)
        hypothesis.settings.load_profile("mutation")
        code = int(pytest.main([*_OPTIONS, *tests]))
    os._exit(code)


def _put_in_place(path: Path, source: str) -> None:
    name = _module_name(path)
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    exec(compile(source, str(path), "exec"), module.__dict__)  # noqa: S102
    package, _, last = name.rpartition(".")
    setattr(importlib.import_module(package), last, module)


def _import_what_is_imported(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import | ast.ImportFrom):
            exec(compile(ast.Module([node], []), str(path), "exec"), {})  # noqa: S102
    if _module_name(path) in sys.modules:
        raise NoVerdictError(f"{path}: a module that it imports imports it, so that no mutant could take its place")


def _module_name(path: Path) -> str:
    return ".".join(path.with_suffix("").parts)
