"""Rules for Pydantic models and dataclasses. They are written and read by Pydantic itself.

This module does not import Pydantic. A type is recognized by the names of its bases, and a program with such a type has
imported Pydantic already.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, TypeAlias, Union, get_origin

from attrs import frozen
from cattrs import Converter

from .._values import ValueObject
from ._containers import Structure, Unstructure
from ._mismatch import Fault, Mismatch, Refused, child, shortened, type_name
from ._types import is_model, is_secret

_Path: TypeAlias = tuple[Any, ...]

_ADVICE: Final = (
    ": it would be recorded as asterisks. Record where the secret is kept, or say how it is recorded with a "
    "field_serializer of its model"
)


def configure_pydantic(converter: Converter) -> None:
    """Register the rules.

    * Models and Pydantic dataclasses: written as by `model_dump(mode="json")`, and read by `model_validate_json`.
      Aliases are written if all of them can be read again, else the names of the fields. Both are read.
    * Secrets: refused, unless a serializer of the model writes them.
    """
    converter.register_structure_hook_factory(is_model, lambda type_, _: _Model.of(type_).structure)
    converter.register_unstructure_hook_factory(is_model, _unstructure_model)
    converter.register_structure_hook_func(is_secret, _refuse_secret_type)
    converter.register_unstructure_hook_func(is_secret, _refuse_secret)


def models_hook(converter: Converter, models: Sequence[Any]) -> Structure:
    """Return the rule that reads the best fit of several models."""
    del converter
    return _Model.of(Union[tuple(models)]).structure  # noqa: UP007 - the members are known at run time only


class ModelErrors(Refused):
    """The faults that Pydantic found, each with its place below the model. Values are omitted: they can be secret."""

    def __init__(self, type_: Any, found: Sequence[tuple[_Path, str]]) -> None:
        self.found = found
        self.type = type_
        super().__init__("; ".join(f"{message} at {_below('$', path)}" for path, message in found))

    def faults(self, path: str) -> list[tuple[str, Fault]]:
        name = type_name(self.type)
        return [(_below(path, inner), Fault(f"{name} refused it: {message}")) for inner, message in self.found]


@frozen(eq=False, repr=False)
class _Model(ValueObject):
    """The way in which one type is written and read."""

    type: Any
    adapter: Any
    by_alias: bool
    reading: Mapping[str, bool]

    @classmethod
    def of(cls, type_: Any) -> _Model:
        pydantic: Any = sys.modules["pydantic"]
        adapter = pydantic.TypeAdapter(type_)
        # Before 2.11 a field was read by one name only, which the model chooses.
        both = tuple(int(part) for part in pydantic.VERSION.split(".")[:2]) >= (2, 11)
        by_alias = all(_is_read_as_written(field) for field in _fields(adapter.core_schema))
        return cls(type_, adapter, by_alias, {"by_alias": True, "by_name": True} if both else {})

    def structure(self, raw: Any, _: Any) -> Any:
        # As text, since a strict model accepts some types, such as a date, from JSON text but not from a Python str.
        text = json.dumps(raw)
        try:
            return self.adapter.validate_json(text, **self.reading)
        except ValueError as exc:
            raise _named(self.type, exc) from None

    def unstructure(self, value: Any) -> Any:
        try:
            plain = self.adapter.dump_python(value, mode="json", by_alias=self.by_alias, warnings="error")
        except ValueError as exc:
            msg = f"{type_name(self.type)} cannot be turned into JSON"
            raise Refused(msg, f": {shortened(str(exc))}") from exc
        kept = self.adapter.dump_python(value, by_alias=self.by_alias, warnings=False)
        masked = next(_masked(kept, plain, ()), None)
        if masked is not None:
            raise _SecretFound(*masked)
        return plain


def _unstructure_model(type_: Any, _: Converter) -> Unstructure:
    model, cls = _Model.of(type_), get_origin(type_) or type_

    def unstructure(value: Any) -> Any:
        if not isinstance(value, cls):
            raise Mismatch(type_, value)
        return model.unstructure(value)

    return unstructure


def _named(type_: Any, exc: ValueError) -> Exception:
    errors: Any = getattr(exc, "errors", None)
    if errors is None:
        return exc
    found = errors(include_url=False, include_context=False, include_input=False)
    return ModelErrors(type_, [(tuple(each["loc"]), shortened(str(each["msg"]))) for each in found])


def _below(path: str, inner: _Path) -> str:
    for key in inner:
        path = child(path, key)
    return path


# Aliases


def _fields(schema: object) -> Iterator[Mapping[str, Any]]:
    """Yield the fields of a model and of all models inside it."""
    if isinstance(schema, Mapping):
        if str(schema.get("type")) in {"model-field", "dataclass-field", "typed-dict-field"}:
            yield schema
        for key, inner in schema.items():
            # Metadata refers to functions, and a class can refer to any object.
            if key not in {"metadata", "cls"}:
                yield from _fields(inner)
    elif isinstance(schema, (list, tuple)):
        for inner in schema:
            yield from _fields(inner)


def _is_read_as_written(field: Mapping[str, Any]) -> bool:
    """Return whether a field can be read by the alias that it is written by."""
    written, read = field.get("serialization_alias"), field.get("validation_alias")
    if written is None or written == read:
        return True
    return isinstance(read, list) and [written] in read


# Secrets


class _SecretFound(Refused):
    """A secret that would be recorded as asterisks."""

    def __init__(self, path: _Path, secret: object) -> None:
        super().__init__(f"a {type(secret).__name__} is not recorded", _ADVICE)
        self.path = path

    def faults(self, path: str) -> list[tuple[str, Fault]]:
        return [(_below(path, self.path), self.fault)]


def _refuse_secret(value: Any) -> Any:
    raise _SecretFound((), value)


def _refuse_secret_type(_: Any, type_: Any) -> Any:
    msg = f"a {type_name(type_)} is not recorded, and cannot be read back"
    raise Refused(msg, _ADVICE)


def _masked(kept: Any, plain: Any, path: _Path) -> Iterator[tuple[_Path, object]]:
    """Yield the secrets that are asterisks in JSON. Other secrets were written by a serializer of the user.

    Args:
        kept: the value as Python objects, with the secrets themselves.
        plain: the value as JSON.
        path: the place of the value in the model.
    """
    if is_secret(type(kept)):
        if _hides(kept) and plain in _masks(kept):
            yield path, kept
    elif isinstance(kept, Mapping) and isinstance(plain, Mapping) and len(kept) == len(plain):
        for (key, inner), (name, written) in zip(kept.items(), plain.items(), strict=True):
            yield from _masked(key, name, path)
            yield from _masked(inner, written, (*path, key))
    elif _is_array(kept) and isinstance(plain, list) and len(kept) == len(plain):
        for index, (inner, written) in enumerate(zip(kept, plain, strict=True)):
            yield from _masked(inner, written, (*path, index))
    else:
        # A serializer has changed the shape, so a secret of `kept` can be anywhere in `plain`.
        texts = set(_texts(plain))
        yield from ((path, secret) for secret in _secrets(kept) if not texts.isdisjoint(_masks(secret)))


def _hides(secret: Any) -> bool:
    """Return whether asterisks stand for the secret. An empty secret is shown as an empty text."""
    value = secret.get_secret_value()
    return not (isinstance(value, (str, bytes)) and len(value) == 0)


def _masks(secret: object) -> frozenset[str]:
    """Return the texts that Pydantic can write in place of the secret."""
    shown = str(secret)
    return frozenset({shown, shown.removeprefix("b'").removesuffix("'")})


def _is_array(value: object) -> bool:
    return isinstance(value, (list, tuple, set, frozenset))


def _secrets(kept: Any) -> Iterator[object]:
    if is_secret(type(kept)):
        if _hides(kept):
            yield kept
    else:
        for inner in _inside(kept):
            yield from _secrets(inner)


def _texts(plain: Any) -> Iterator[str]:
    if isinstance(plain, str):
        # Pydantic writes a tuple that is a key as its members joined by commas.
        yield from (plain, *plain.split(","))
    else:
        for inner in _inside(plain):
            yield from _texts(inner)


def _inside(value: Any) -> Iterable[Any]:
    if isinstance(value, Mapping):
        return (*value, *value.values())
    return value if _is_array(value) else ()
