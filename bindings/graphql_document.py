"""GraphQL documents (specification of September 2025): what an operation asks of the server, field by field."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLError,
    InlineFragmentNode,
    OperationDefinitionNode,
    SelectionNode,
    Undefined,
    parse,
)
from graphql.utilities import value_from_ast_untyped

from .facts import Unclassifiable

MAX_SOURCE = 100_000
MAX_TOKENS = 10_000


@dataclass(frozen=True, slots=True)
class Asked:
    """A field at the top of an operation: `type` is query, mutation or subscription."""

    type: str
    operation: str
    field: str
    arguments: dict[str, Any]


def asked_of(source: str, operation_name: str | None, variables: Mapping[str, Any]) -> list[Asked]:
    """The fields at the top of the operation that is run, in order, whatever `@skip` says. Raises Unclassifiable."""
    document = _parsed(source)
    operation = _operation(document, operation_name)
    given = _with_defaults(operation, variables)
    name = operation.name.value if operation.name is not None else ""
    found = [
        Asked(operation.operation.value, name, node.name.value, _arguments(node, given))
        for node in _fields(operation, document)
    ]
    if not found:
        raise Unclassifiable("not_graphql", "the operation asks for nothing")
    return found


def _parsed(source: str) -> DocumentNode:
    if len(source) > MAX_SOURCE:
        raise Unclassifiable("not_graphql", f"the document has {len(source)} characters, expected at most {MAX_SOURCE}")
    try:
        document = parse(source, no_location=True, max_tokens=MAX_TOKENS)
    except (GraphQLError, RecursionError) as e:
        said = e.message if isinstance(e, GraphQLError) else "nests too deeply"
        raise Unclassifiable("not_graphql", f"the document cannot be judged: {said[:200]}") from None
    for definition in document.definitions:
        if not isinstance(definition, OperationDefinitionNode | FragmentDefinitionNode):
            raise Unclassifiable("not_graphql", "a request has operations and fragments, and no type definitions")
    return document


def _operation(document: DocumentNode, name: str | None) -> OperationDefinitionNode:
    operations = [node for node in document.definitions if isinstance(node, OperationDefinitionNode)]
    names = [node.name.value if node.name is not None else "" for node in operations]
    if len(set(names)) < len(names) or (len(names) > 1 and "" in names):
        raise Unclassifiable("ambiguous_operation", "of several operations each needs a name of its own")
    if not name and len(operations) == 1:
        return operations[0]
    chosen = [node for node, its in zip(operations, names, strict=True) if its == name]
    if not name or not chosen:
        raise Unclassifiable("ambiguous_operation", "operationName names none of the document's operations")
    return chosen[0]


def _fields(operation: OperationDefinitionNode, document: DocumentNode) -> Iterator[FieldNode]:
    """The fields at the top, those of fragments too; each fragment once."""
    fragments: dict[str, FragmentDefinitionNode] = {}
    for made in document.definitions:
        if isinstance(made, FragmentDefinitionNode) and fragments.setdefault(made.name.value, made) is not made:
            raise Unclassifiable("ambiguous_operation", f"the fragment {made.name.value!r} stands twice")
    taken: set[str] = set()
    waiting: list[Iterator[SelectionNode]] = [iter(operation.selection_set.selections)]
    while waiting:
        node = next(waiting[-1], None)
        if node is None:
            waiting.pop()
        elif isinstance(node, FieldNode):
            yield node
        elif isinstance(node, InlineFragmentNode):
            waiting.append(iter(node.selection_set.selections))
        elif isinstance(node, FragmentSpreadNode) and node.name.value not in taken:
            taken.add(node.name.value)
            if node.name.value not in fragments:
                raise Unclassifiable("not_graphql", f"there is no fragment {node.name.value!r}")
            waiting.append(iter(fragments[node.name.value].selection_set.selections))


def _with_defaults(operation: OperationDefinitionNode, variables: Mapping[str, Any]) -> dict[str, Any]:
    defaults = {
        node.variable.name.value: _value(node.default_value, {})
        for node in operation.variable_definitions or ()
        if node.default_value is not None
    }
    return {**defaults, **variables}


def _arguments(node: FieldNode, variables: dict[str, Any]) -> dict[str, Any]:
    names = [argument.name.value for argument in node.arguments or ()]
    if len(set(names)) < len(names):
        raise Unclassifiable("ambiguous_operation", f"an argument of {node.name.value!r} stands twice")
    values = {argument.name.value: _value(argument.value, variables) for argument in node.arguments or ()}
    return {name: value for name, value in values.items() if value is not Undefined}


def _value(node: Any, variables: dict[str, Any]) -> Any:
    try:
        return _plain(value_from_ast_untyped(node, variables))
    except ValueError as e:
        raise Unclassifiable("not_graphql", f"a value cannot be judged: {e}"[:200]) from None


def _plain(value: Any) -> Any:
    """As JSON: what a variable leaves out is null in a list and not there in an object. Raises ValueError."""
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("a number is too large for a double")
    if isinstance(value, Mapping):
        return {name: _plain(one) for name, one in value.items() if one is not Undefined}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [None if one is Undefined else _plain(one) for one in value]
    return value
