"""Whose an attribute is: enough of the types of expressions to tell which class declares what is assigned or read.

It follows annotations of parameters, of fields and of variables, and calls of classes. Where these say nothing, every
class of the package that declares an attribute of that name is taken for a candidate.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Final, TypeAlias

from attrs import field, frozen

from .source import PACKAGE, Module, modules

Scope: TypeAlias = Mapping[str, str]
"""The full names of the classes that variables are of; a name without an entry is of one that is not known."""

ELSEWHERE: Final = ""
"""A class that is not of this package."""

FUNCTIONS: Final = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)


@frozen(eq=False)
class Class:
    """A class of the package.

    Attributes:
        name: its full name.
        module: where it is.
        fields: the attributes that it declares or that its methods assign, and the classes that they are of.
        methods: the names of its methods.
        bases: the full names of the classes that it inherits from.
        protocol: whether it only says what other classes have.
    """

    name: str
    module: Module
    protocol: bool = False
    fields: dict[str, str | None] = field(factory=dict)
    methods: set[str] = field(factory=set)
    bases: list[str] = field(factory=list)


@frozen
class Access:
    """An attribute of an object other than `self` and `cls`, where it is read, called, assigned or deleted.

    Attributes:
        module: where.
        line: where in it.
        text: the expression.
        attribute: its name.
        owners: the classes that it may be of; empty if it is of none of the package.
        of: the module of the package whose name it is, if it is one's.
        assigned: whether it is assigned or deleted.
    """

    module: Module
    line: int
    text: str
    attribute: str
    owners: tuple[Class, ...]
    of: str
    assigned: bool

    def __str__(self) -> str:
        return f"{self.module.short}:{self.line} {self.text}"


def resolved(name: str) -> str:
    """The full name of what `name` stands for, past modules that only import it."""
    for _ in range(9):
        module, _, last = name.rpartition(".")
        if module not in modules() or name in modules():
            return name
        target = modules()[module].imports.get(last)
        if target is None or target == name:
            return name
        name = target
    return name


@cache
def classes() -> dict[str, Class]:
    """Every class of the package by its full name."""
    found = {
        f"{module.name}.{node.name}": (Class(f"{module.name}.{node.name}", module, _is_protocol(node)), node)
        for module in modules().values()
        for node in ast.walk(module.tree)
        if isinstance(node, ast.ClassDef)
    }
    known = {name: each for name, (each, _) in found.items()}
    for each, node in found.values():
        each.bases.extend(name for base in node.bases if (name := _named(base, each.module)) in known)
        _declare(each, node, known)
    return known


def _is_protocol(node: ast.ClassDef) -> bool:
    return any(ast.unparse(base).partition("[")[0].rpartition(".")[2] == "Protocol" for base in node.bases)


def _declare(each: Class, node: ast.ClassDef, known: Mapping[str, Class]) -> None:
    for statement in node.body:
        match statement:
            case ast.AnnAssign(target=ast.Name(id=name), annotation=annotation):
                each.fields[name] = _annotated(annotation, each.module, known)
            case ast.Assign(targets=targets):
                each.fields.update(dict.fromkeys((name.id for name in targets if isinstance(name, ast.Name)), None))
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                if any(isinstance(mark, ast.Name) and "property" in mark.id for mark in statement.decorator_list):
                    each.fields[name] = _annotated(statement.returns, each.module, known)
                else:
                    each.methods.add(name)
                for inner in ast.walk(statement):
                    _declare_by(inner, each, known)
            case _:
                pass


def _declare_by(node: ast.AST, each: Class, known: Mapping[str, Class]) -> None:
    match node:
        case ast.AnnAssign(target=ast.Attribute(value=ast.Name(id="self"), attr=name), annotation=annotation):
            each.fields.setdefault(name, _annotated(annotation, each.module, known))
        case ast.Assign(targets=targets):
            for target in targets:
                for part in ast.walk(target):
                    if isinstance(part, ast.Attribute) and isinstance(part.value, ast.Name) and part.value.id == "self":
                        each.fields.setdefault(part.attr, None)
        case _:
            pass


def _named(node: ast.AST | None, module: Module) -> str:
    """The full name of what a name or a dotted name stands for."""
    match node:
        case ast.Name(id=name):
            return resolved(module.imports.get(name, f"{module.name}.{name}"))
        case ast.Attribute(value=value, attr=name):
            return resolved(f"{_named(value, module)}.{name}")
        case ast.Subscript(value=value):
            return _named(value, module)
        case _:
            return ""


def _annotated(annotation: ast.AST | None, module: Module, known: Mapping[str, Class]) -> str | None:
    """The class that an annotation names, if it is a single one: of the package, elsewhere, or not known."""
    match annotation:
        case None:
            return None
        case ast.Constant(value=str(text)):
            return _annotated(ast.parse(text, mode="eval").body, module, known)
        case ast.BinOp(left=left, right=right):
            parts = [each for each in (left, right) if not _is_none(each)]
            return _annotated(parts[0], module, known) if len(parts) == 1 else None
        case ast.Subscript(value=ast.Name(id="Final" | "ClassVar"), slice=inner):
            return _annotated(inner, module, known)
        case _:
            name = _named(annotation, module)
            if name in known:
                return name
            # an alias of the package may stand for anything; so may Any and a type variable
            last = name.rpartition(".")[2]
            return None if last in {"Any", "object", "Self"} or len(last) < 3 or name.startswith(PACKAGE) else ELSEWHERE


def _is_none(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


def mro(name: str) -> Iterator[Class]:
    """A class and those of the package that it inherits from."""
    if name in classes():
        yield classes()[name]
        for base in classes()[name].bases:
            yield from mro(base)


@cache
def accesses() -> tuple[Access, ...]:
    """Each place in the package where an attribute of an object other than `self` and `cls` is named."""
    return tuple(access for module in modules().values() for access in _Accesses(module).of(module.tree, {}))


@frozen
class _Accesses:
    module: Module

    def of(self, node: ast.AST, scope: Scope) -> Iterator[Access]:
        """Those below a node, where variables are of these classes."""
        if isinstance(node, ast.ClassDef):
            scope = {**scope, "self": f"{self.module.name}.{node.name}"}
        elif isinstance(node, FUNCTIONS):
            scope = {**scope, **self._variables(node, scope)}
        elif isinstance(node, ast.Attribute):
            yield from self._attribute(node, scope)
        elif isinstance(node, ast.Call):
            yield from self._by_name(node, scope)
        for child in ast.iter_child_nodes(node):
            yield from self.of(child, scope)

    def _variables(self, function: ast.AST, scope: Scope) -> dict[str, str]:
        found: dict[str, str] = {}
        arguments = getattr(function, "args", None)
        assert isinstance(arguments, ast.arguments)
        for argument in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs):
            known = _annotated(argument.annotation, self.module, classes())
            if known is not None:
                found[argument.arg] = known
        for node in ast.walk(function):
            match node:
                case ast.AnnAssign(target=ast.Name(id=name), annotation=annotation):
                    known = _annotated(annotation, self.module, classes())
                case (
                    ast.Assign(targets=[ast.Name(id=name)], value=value)
                    | ast.NamedExpr(target=ast.Name(id=name), value=value)
                ):
                    known = self.class_of(value, {**scope, **found})
                case _:
                    continue
            if known is not None:
                found[name] = known
        return found

    def class_of(self, node: ast.AST, scope: Scope) -> str | None:
        """The class that an expression is of, if that can be told."""
        match node:
            case ast.Name(id=name):
                return scope.get(name)
            case ast.Attribute(value=value, attr=name):
                owner = self.class_of(value, scope)
                declared = (each.fields[name] for each in mro(owner or "") if name in each.fields)
                return ELSEWHERE if owner == ELSEWHERE else next(declared, None)
            case ast.Call(func=ast.Name() as func):
                name = _named(func, self.module)
                return name if name in classes() else None
            case _:
                return None

    def _attribute(self, node: ast.Attribute, scope: Scope) -> Iterator[Access]:
        match node.value:
            case ast.Name(id="self" | "cls"):
                return
            case ast.Call(func=ast.Name(id="super")):
                return
            case _:
                yield self._access(node, node.value, node.attr, scope, assigned=not isinstance(node.ctx, ast.Load))

    def _by_name(self, node: ast.Call, scope: Scope) -> Iterator[Access]:
        match node:
            case ast.Call(
                func=ast.Name(id="setattr") | ast.Attribute(value=ast.Name(id="object"), attr="__setattr__"),
                args=[value, ast.Constant(value=str(name)), _],
            ) if not (isinstance(value, ast.Name) and value.id in {"self", "cls"}):
                yield self._access(node, value, name, scope, assigned=True)
            case _:
                return

    def _access(self, node: ast.AST, value: ast.expr, name: str, scope: Scope, *, assigned: bool) -> Access:
        text, line = ast.unparse(node), getattr(node, "lineno", 0)
        of = self._module(value)
        owners = () if of else self._owners(value, name, scope)
        return Access(self.module, line, text, name, owners, of if of in modules() else "", assigned)

    def _owners(self, value: ast.expr, name: str, scope: Scope) -> tuple[Class, ...]:
        known = self.class_of(value, scope)
        if known == ELSEWHERE:
            return ()
        if known is None and _named(value, self.module) in classes():
            # of the class itself
            known = _named(value, self.module)
        declared = [each for each in mro(known or "") if name in each.fields or name in each.methods]
        if declared and not declared[0].protocol:
            return tuple(declared[:1])
        # The object that a protocol stands for is of some class that has what the protocol says.
        candidates = [each for each in classes().values() if name in each.fields or name in each.methods]
        return tuple(each for each in candidates if not each.protocol) or tuple(declared[:1])

    def _module(self, value: ast.expr) -> str:
        """The full name of the module that an expression names, if it names one, be it of the package or not."""
        match value:
            case ast.Name(id=name):
                target = self.module.imports.get(name, "")
            case ast.Attribute(value=inner, attr=name) if outer := self._module(inner):
                target = f"{outer}.{name}"
            case _:
                return ""
        # what is imported from elsewhere may be a class: its attributes are none of the package's either
        return target if target in modules() or not target.startswith(PACKAGE) else ""
