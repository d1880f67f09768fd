"""Plain data: values that a converter writes and reads unchanged.

None, bools, numbers, text, and lists, tuples and dicts of them are JSON already, and most recorded values are such. The
rules of the converter copy these values part by part, with about ten calls for each part. `PlainData` recognizes them
in one loop, so that they are written without the rules. The recorded bytes are the same.

Users can register hooks for these types as well. If a converter has such a hook, none of its values is plain.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from types import NoneType
from typing import Any, Final, TypeVar
from weakref import WeakKeyDictionary, ref

from attrs import define, field
from cattrs import Converter
from cattrs.fns import identity

from ._guard import ends_program
from ._scalars import READERS

Rule = TypeVar("Rule", bound=Callable[..., Any])

_DEEPEST: Final = 20
"""The number of levels that plain data may have. Deeper values are left to the rules, which refuse what is too deep."""

_SCALARS: Final = (str, int, bool, NoneType, float)
_CONTAINERS: Final = (list, tuple, dict)

# By id, since a hash or a comparison of a type can run code of its metaclass.
_READERS: Final = {id(type_): READERS[type_] for type_ in _SCALARS}

_copying: Final[WeakKeyDictionary[Callable[..., Any], ref[Converter]]] = WeakKeyDictionary()


_STATE: Final = object()
"""Stands for a type. A converter makes a new hook for it after each registration, since that clears all caches."""


def configure_plain(converter: Converter) -> None:
    """Let a registration of hooks be noticed."""
    converter.register_unstructure_hook_factory(lambda type_: type_ is _STATE, lambda _: partial(identity))


def copies_plain_data(rule: Rule, converter: Converter) -> Rule:
    """Mark a rule that this package has made for a converter as one that changes nothing in plain data, and return it.

    A rule asks the hooks of its own converter for the parts of a value, so the mark holds for that converter only.
    """
    _copying[rule] = ref(converter)
    return rule


@define(eq=False)
class PlainData:
    """The values that one converter writes and reads unchanged.

    The converter's hooks are examined once after each registration of a hook.
    """

    _converter: Converter
    _seen: object = field(default=None, init=False)
    _unchanged: bool = field(default=False, init=False)

    def includes(self, value: object, type_: Any = Any) -> bool:
        """Return whether a value is written unchanged, and whether the text of it is read as `type_` unchanged.

        The answer may be False for such a value too, for example if it is nested deeply.
        """
        try:
            state = self._converter.get_unstructure_hook(_STATE)
            if state is not self._seen:
                self._unchanged = _leaves_plain_data(self._converter)
                self._seen = state
            if not self._unchanged or type_ is Any:
                return self._unchanged and is_json(value)
            reader = _READERS.get(id(type_))
            return type(value) is type_ and reader is not None and self._converter.get_structure_hook(type_) is reader
        except BaseException as exc:
            # A hook factory of a user fails for one of these types.
            if ends_program(exc):
                raise
            return False


def is_json(value: object) -> bool:
    """Return whether a value consists of the exact types of JSON and of tuples, and is not nested deeply."""
    # One iterator for each level, so that a list that contains itself soon ends at the deepest one.
    levels: list[Iterator[Any]] = [iter((value,))]
    while levels:
        for part in levels[-1]:
            # By identity, since a comparison of types can run code of a metaclass.
            kind = type(part)
            if kind is str or kind is int or kind is bool or kind is NoneType or kind is float:
                continue
            if len(levels) > _DEEPEST or not (kind is list or kind is tuple or kind is dict):
                return False
            if kind is dict:
                # Copies, since another thread may change the dict.
                for key in tuple(part):
                    if type(key) is not str:
                        return False
                part = tuple(part.values())  # noqa: PLW2901 - what is inside of it
            levels.append(iter(part))
            break
        else:
            levels.pop()
    return True


def _leaves_plain_data(converter: Converter) -> bool:
    """Return whether no hook of a user is asked when plain data is written."""
    scalars = all(converter.get_unstructure_hook(type_) is identity for type_ in _SCALARS)
    containers = all(_is_own_rule(converter.get_unstructure_hook(type_), converter) for type_ in (*_CONTAINERS, Any))
    # A subclass may have its own method.
    return scalars and containers and getattr(converter.unstructure, "__func__", None) is Converter.unstructure


def _is_own_rule(hook: Callable[..., Any], converter: Converter) -> bool:
    owner = _copying.get(hook)
    return owner is not None and owner() is converter
