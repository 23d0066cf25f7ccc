"""Reads members of inner objects into fields of one struct.

A field whose name in the JSON has dots is read along these members. So an inner object needs no class of its own:

    amount: Decimal = msgspec.field(name="transaction_amount.amount")
    creditor: str | None = msgspec.field(default=None, name="creditor.name")

If an inner object is missing or null, its fields have their defaults; if one of them has none, the object must be
there. Decoding stays in C, with structs that are made of the paths; to put the values together takes less than a
microsecond. Paths are followed in the fields of the outermost struct alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from operator import attrgetter
from typing import Any, TypeVar

import msgspec
from msgspec.inspect import is_struct_type
from msgspec.structs import FieldInfo

T = TypeVar("T")
Path = tuple[str, ...]


def decoder(shape: type[T]) -> Callable[[bytes | msgspec.Raw], T]:
    """The function that decodes JSON text as `shape`, which may be a struct with such fields, or any other type.

    The function raises what `msgspec.json.Decoder.decode` raises.

    Raises:
        TypeError: a member is read as a whole and by a path, too.
    """
    fields = msgspec.structs.fields(shape) if is_struct_type(shape) else ()
    named = {tuple(field.encode_name.split(".")): field for field in fields}
    if all(len(path) == 1 for path in named):
        return msgspec.json.Decoder(shape).decode
    optional: list[tuple[Path, type[msgspec.Struct]]] = []
    decode = msgspec.json.Decoder(_struct(named, (), optional)).decode
    values = attrgetter(*map(_attribute, named)) if len(named) > 1 else _single(*named)
    may_be_null = [(_getter(path[:-1]), _member(path[-1]), empty) for path, empty in optional]
    make = _maker(shape, [field.name for field in fields])

    def decoded(text: bytes | msgspec.Raw) -> T:
        given = decode(text)
        for holder, member, empty in may_be_null:
            within = given if holder is None else holder(given)
            if getattr(within, member) is None:
                setattr(within, member, empty())
        return make(*values(given))

    return decoded


def _struct(
    named: Mapping[Path, FieldInfo], before: Path, optional: list[tuple[Path, type[msgspec.Struct]]]
) -> type[msgspec.Struct]:
    """The struct of an object with these fields; notes which of its inner objects may be missing, outer ones first."""
    inner: dict[str, dict[Path, FieldInfo]] = {}
    for path, field in named.items():
        inner.setdefault(path[0], {})[path[1:]] = field
    members: list[tuple[str, Any, Any]] = []
    for name, fields in inner.items():
        if () in fields and len(fields) > 1:
            raise TypeError(f"{'.'.join((*before, name))} is read as a whole and by a path, too")
        if (own := fields.get(())) is not None:
            members.append((_member(name), own.type, _default(own)))
            continue
        place = len(optional)
        object_ = _struct(fields, (*before, name), optional)
        if any(field.required for field in fields.values()):
            members.append((_member(name), object_, msgspec.NODEFAULT))
        else:
            optional.insert(place, ((*before, name), object_))
            members.append((_member(name), object_ | None, msgspec.field(default_factory=object_)))
    names = {_member(name): name for name in inner}
    return msgspec.defstruct("Object", members, rename=names, kw_only=True, gc=False)


def _maker(shape: type[T], names: list[str]) -> Callable[..., T]:
    """Makes a struct of the values of all its fields, of which some may be given by keyword only."""
    if len(shape.__match_args__) == len(names):  # type: ignore[attr-defined]
        return shape
    return lambda *values: shape(**dict(zip(names, values, strict=True)))


def _default(field: FieldInfo) -> Any:
    make = field.default_factory
    return field.default if make is msgspec.NODEFAULT else msgspec.field(default_factory=make)


def _member(name: str) -> str:
    """The attribute for a member of any name."""
    return f"m{name.encode().hex()}"


def _attribute(path: Path) -> str:
    return ".".join(map(_member, path))


def _single(path: Path) -> Callable[[Any], tuple[Any]]:
    """`attrgetter` returns a tuple only of several attributes."""
    get = attrgetter(_attribute(path))
    return lambda given: (get(given),)


def _getter(path: Path) -> Callable[[Any], Any] | None:
    return attrgetter(_attribute(path)) if path else None
