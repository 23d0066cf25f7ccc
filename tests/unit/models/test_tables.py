"""The tables are made one file at a time, so the list of the files must be complete."""

from __future__ import annotations

import pkgutil
from importlib import import_module

import pytest

from worker import models
from worker.models.base import Base


def test_every_table_of_every_file_is_listed() -> None:
    files = [import_module(f"worker.models.{found.name}") for found in pkgutil.iter_modules(models.__path__)]
    classes = {mapper.class_.__name__: mapper.class_ for mapper in Base.registry.mappers}

    assert len(files) > 15
    assert {name: getattr(models, name) for name in classes} == classes
    assert set(models.__all__) >= {*classes, "sync_seen"}


def test_every_name_that_the_package_offers_is_found() -> None:
    assert all(getattr(models, name) is not None for name in models.__all__)
    assert "sync_seen" in models.every_table().tables


def test_a_name_that_no_file_has_is_refused() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'Nothing'"):
        _ = models.Nothing
