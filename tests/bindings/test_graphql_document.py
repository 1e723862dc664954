"""Held against a real executor: whatever it does at the top of an operation was judged, with the same arguments."""

from __future__ import annotations

from typing import Any

from graphql import (
    GraphQLArgument,
    GraphQLField,
    GraphQLInt,
    GraphQLList,
    GraphQLObjectType,
    GraphQLResolveInfo,
    GraphQLSchema,
    GraphQLString,
    execute,
    parse,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from lictor.bindings.facts import Unclassifiable
from lictor.bindings.graphql_document import asked_of

NAMES = ("a", "b", "c")
done: list[tuple[str, dict[str, Any]]] = []


def _resolve(source: Any, info: GraphQLResolveInfo, **arguments: Any) -> dict[str, Any]:
    if info.path.prev is None:
        done.append((info.field_name, arguments))
    return {}


ARGUMENTS = {
    "n": GraphQLArgument(GraphQLInt),
    "s": GraphQLArgument(GraphQLString),
    "l": GraphQLArgument(GraphQLList(GraphQLInt)),
}
TOP: GraphQLObjectType = GraphQLObjectType(
    "Query", lambda: {name: GraphQLField(TOP, dict(ARGUMENTS), resolve=_resolve) for name in NAMES}
)
CHANGE = GraphQLObjectType("Mutation", {name: GraphQLField(TOP, dict(ARGUMENTS), resolve=_resolve) for name in NAMES})
SCHEMA = GraphQLSchema(TOP, CHANGE)

directive = st.sampled_from(["", "", " @skip(if: false)", " @skip(if: true)", " @include(if: $yes)"])
argument = st.sampled_from(
    ["", "(n: 1)", "(n: $n)", "(s: $s, n: 2)", "(l: [$n, 3])", "(n: $d)", '(s: "x", l: [])', "(s: null)"]
)
selection = st.recursive(
    st.one_of(
        st.builds(
            "{}{}{}{} {{ __typename }}".format,
            st.sampled_from(["", "x: ", "a: ", "b: "]),
            st.sampled_from(NAMES),
            argument,
            directive,
        ),
        st.builds("...{}{}".format, st.sampled_from(["F", "G"]), directive),
    ),
    lambda inner: st.builds(
        "...{}{} {{ {} }}".format,
        st.sampled_from(["", " on Query", " on Mutation"]),
        directive,
        st.lists(inner, min_size=1, max_size=3).map(" ".join),
    ),
    max_leaves=6,
)
selections = st.lists(selection, min_size=1, max_size=3).map(" ".join)
VARIABLES = "($n: Int, $s: String, $d: Int = 7, $yes: Boolean = true)"
operation = st.builds(
    "{} {}{} {{ {} }}".format,
    st.sampled_from(["query", "mutation"]),
    st.sampled_from("AB"),
    st.just(VARIABLES),
    selections,
)


on_type = st.sampled_from(["Query", "Mutation"])
fragment = st.builds("fragment {} on {} {{ {} }}".format, st.sampled_from("FG"), on_type, selections)
value = {"n": st.integers(-5, 5) | st.none(), "s": st.just("v"), "d": st.just(1)}


@settings(max_examples=150, deadline=None)
@given(
    operations=st.lists(operation, min_size=1, max_size=2),
    fragments=st.lists(fragment, max_size=2),
    name=st.sampled_from([None, "A", "B"]),
    variables=st.fixed_dictionaries({}, optional=value),
)
def test_what_an_executor_does_was_judged(
    operations: list[str], fragments: list[str], name: str | None, variables: dict[str, Any]
) -> None:
    source = " ".join([*operations, *fragments])
    done.clear()
    # Without validation, of which servers do more or less.
    execute(SCHEMA, parse(source), variable_values=variables, operation_name=name)
    try:
        judged = asked_of(source, name, variables)
    except Unclassifiable:
        return
    for field, arguments in done:
        assert (field, arguments) in [(asked.field, asked.arguments) for asked in judged]
