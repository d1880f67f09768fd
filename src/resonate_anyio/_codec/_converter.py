"""The cattrs converter that turns values into JSON and back."""

from __future__ import annotations

from typing import Any

from cattrs import Converter

from ._containers import configure_containers
from ._json import configure_plain
from ._numpy import configure_numpy
from ._plain import copies_plain_data
from ._pydantic import configure_pydantic
from ._scalars import configure_scalars
from ._types import is_open, is_union
from ._unions import configure_unions


class WireConverter(Converter):
    """A converter on which a user's hook for a union precedes the rules of this package for unions."""

    def register_structure_hook(self, cl: Any, func: Any = None) -> Any:
        """Register a function that makes an instance of `cl` from JSON."""
        if func is None:
            return super().register_structure_hook(cl)
        if is_union(cl):
            # cattrs would keep the hook in a table that it consults last.
            self.register_structure_hook_func(lambda type_: type_ == cl, func)
            return None
        return super().register_structure_hook(cl, func)


def make_converter() -> Converter:
    """Return a converter with the rules of this package. Register hooks on it and pass it to `Resonate`.

    A hook that is registered later takes precedence:

        converter = make_converter()
        converter.register_unstructure_hook(Money, str)
        converter.register_structure_hook(Money, lambda raw, _: Money.parse(raw))
    """
    converter = WireConverter(detailed_validation=True)
    configure_plain(converter)
    configure_scalars(converter)
    configure_containers(converter)
    configure_unions(converter)
    configure_pydantic(converter)
    configure_numpy(converter)
    converter.register_structure_hook_func(is_open, copies_plain_data(lambda raw, _: raw, converter))
    converter.register_unstructure_hook_factory(is_open, _unstructure_open)
    return converter


def _unstructure_open(_: Any, converter: Converter) -> Any:
    # The type of a bare `object()` is open itself: to apply the rule of its type would not end.
    return copies_plain_data(lambda value: value if type(value) is object else converter.unstructure(value), converter)
