"""What a GraphQL request does: its fields, whatever its name, its fragments and its spelling say."""

import hashlib
import json
from typing import Any
from urllib.parse import urlencode

import pytest
from classified import JSON, request

from lictor.bindings.catalog import Catalog
from lictor.bindings.classification import classify
from lictor.bindings.facts import Classified, RequestFacts, Unclassifiable
from lictor.bindings.graphql_document import MAX_SOURCE, MAX_TOKENS
from lictor.bindings.jsonrpc import MAX_BATCH
from lictor.bindings.model import ActionType
from lictor.bindings.target import Kind, Target
from lictor.formats.errors import UsageError

TARGET = Target("urn:example:ds:g", "data_source", ("https://g.example/graphql",), "graphql")
TOOL = Target("urn:example:tool:g", "tool", ("https://t.example/graphql",), "graphql")
CATALOG = Catalog([TARGET, TOOL])
HASH = hashlib.sha256(b"{a}").hexdigest()


def post(query: Any, **members: Any) -> RequestFacts:
    body = {"query": query, **members} if not isinstance(query, list | dict) else query
    return request("g.example/graphql", body)


def get(**parameters: Any) -> RequestFacts:
    query = urlencode({n: v if isinstance(v, str) else json.dumps(v) for n, v in parameters.items()})
    return RequestFacts("GET", "https", "g.example", 443, "/graphql", query, (), b"")


def targets(facts: RequestFacts) -> list[str]:
    return [action.target.partition("#")[2] for action in classify(CATALOG, facts)]


def one(facts: RequestFacts) -> Classified:
    (action,) = classify(CATALOG, facts, "body")
    return action


def persisted(hash_: str) -> dict[str, Any]:
    return {"persistedQuery": {"version": 1, "sha256Hash": hash_}}


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        (post("{ user { id } }"), ["query/user"]),
        (post("query GetUser { user { id } }"), ["query/user"]),
        (post("mutation GetUser { deleteUser(id: 1) }"), ["mutation/deleteUser"]),
        (post("subscription { added { id } }"), ["subscription/added"]),
        (post("{ user: secrets { id } }"), ["query/secrets"]),
        (post("{ a { id } b: a { id } c }"), ["query/a", "query/a", "query/c"]),
        (post("{ a @skip(if: true) b @include(if: false) }"), ["query/a", "query/b"]),
        (
            post("{ ...F a } fragment F on Query { ...G b } fragment G on Query { c }"),
            ["query/c", "query/b", "query/a"],
        ),
        (post("{ ... on Query { ... { a } } ... @include(if: true) { b } }"), ["query/a", "query/b"]),
        (post("{ ...F ...F } fragment F on Query { a ...F }"), ["query/a"]),
        (post("{ __schema { types { name } } }"), ["query/__schema"]),
        (post("\ufeff# a comment { b }\n{ , a }"), ["query/a"]),
        (post("query A { a } mutation B { b }", operationName="A"), ["query/a"]),
        (post("query A { a } mutation B { b }", operationName="B"), ["mutation/b"]),
        (post("query A { a }", operationName=None, variables=None, extensions=None), ["query/a"]),
        (post([{"query": "{a}"}, {"query": "mutation {b c}"}]), ["query/a", "mutation/b", "mutation/c"]),
        (post({"extensions": persisted(HASH)}), [f"persisted/{HASH}"]),
        (post({"query": "", "extensions": persisted(HASH)}), [f"persisted/{HASH}"]),
        (post("{a}", extensions=persisted(HASH)), ["query/a"]),
        (post({"documentId": "Get User"}), ["persisted/Get%20User"]),
        (post({"doc_id": "17"}), ["persisted/17"]),
        (get(query="{ a }"), ["query/a"]),
        (get(query="query($x: Int) { a(x: $x) }", variables={"x": 1}), ["query/a"]),
        (get(query="subscription { s }"), ["subscription/s"]),
        (get(extensions=persisted(HASH)), [f"persisted/{HASH}"]),
        (get(), [""]),
        (get(page="1"), [""]),
    ],
)
def test_the_fields_at_the_top_are_the_actions(facts: RequestFacts, expected: list[str]) -> None:
    assert targets(facts) == expected


def test_the_kind_of_target_says_the_type_of_action() -> None:
    assert one(post("{a}")).type is ActionType.DATA_SOURCE_ACCESS
    assert one(request("t.example/graphql", {"query": "{a}"})).type is ActionType.TOOL_CALL


@pytest.mark.parametrize("kind", ["model", "agent"])
def test_no_other_kind_speaks_it(kind: Kind) -> None:
    with pytest.raises(UsageError, match="its kind must be 'tool' or 'data_source'"):
        Catalog([Target("urn:example:x", kind, ("https://x.example/",), "graphql")])


def test_the_operation_s_name_is_kept_as_a_parameter() -> None:
    assert one(post("query Harmless { a }")).parameters == {"method": "POST", "operation": "Harmless"}
    assert one(post("{ a }")).parameters == {"method": "POST"}


def test_a_field_s_arguments_are_its_content_with_the_variables_in_their_places() -> None:
    source = """query ($id: ID!, $n: Int = 3, $m: Int = 5, $gone: Int) {
        user(id: $id, first: $n, m: $m, gone: $gone, where: {role: ADMIN, gone: $gone}, list: [$gone, $n], s: "x")
    }"""
    found = one(post(source, variables={"id": "7", "m": None})).content
    assert found is not None
    assert found["arguments"] == {
        "id": "7",
        "first": 3,
        "m": None,
        "where": {"role": "ADMIN"},
        "list": [None, 3],
        "s": "x",
    }
    assert found["body"]["variables"] == {"id": "7", "m": None}


def test_each_field_has_its_own_arguments() -> None:
    actions = classify(CATALOG, post("{ a: user(id: 1) { n } b: user(id: 2) { n } }"), "body")
    assert [action.content["arguments"] for action in actions if action.content] == [{"id": 1}, {"id": 2}]


def test_a_persisted_operation_and_a_get_have_their_variables() -> None:
    content = one(post({"documentId": "x", "variables": {"a": 1}})).content
    assert content is not None
    assert content["arguments"] == {"a": 1}
    content = one(get(query="query($x: Int) { a(x: $x) }", variables={"x": 1})).content
    assert content is not None
    assert content["arguments"] == {"x": 1}
    assert "body" not in content


AMBIGUOUS = "ambiguous_operation"
BAD = "not_graphql"


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        (post("query A { a } query B { b }"), AMBIGUOUS),
        (post("query A { a } query B { b }", operationName="C"), AMBIGUOUS),
        (post("query A { a } query B { b }", operationName=""), AMBIGUOUS),
        (post("query A { a } query A { b }", operationName="A"), AMBIGUOUS),
        (post("{ a } query B { b }", operationName="B"), AMBIGUOUS),
        (post("query A { a }", operationName="B"), AMBIGUOUS),
        (post("{ ...F } fragment F on Q { a } fragment F on Q { b }"), AMBIGUOUS),
        (post("{ a(x: 1, x: 2) }"), AMBIGUOUS),
        (post("{b}", extensions=persisted(HASH)), AMBIGUOUS),
        (post("{a}", documentId="x"), AMBIGUOUS),
        (post("{ ...F }"), BAD),
        (post("fragment F on Q { a }"), AMBIGUOUS),
        (post("type A { b: Int }"), BAD),
        (post("{ a"), BAD),
        (post("{ }"), BAD),
        (post(""), BAD),
        (post({}), BAD),
        (post({"documentId": "x", "extensions": persisted(HASH)}), BAD),
        (post({"documentId": 7}), BAD),
        (post(["{a}"]), BAD),
        (post(7), BAD),
        (post("{a}", variables=[1]), BAD),
        (post("{a}", operationName=7), BAD),
        (post("{ a(x: 1e999) }"), BAD),
        (post(f"{{ a(x: {'9' * 5000}) }}"), BAD),
        (post("{" + "a{" * 5000 + "b" + "}" * 5001), BAD),
        (post("{ a(x: " + "[" * 2000 + "]" * 2000 + ") }"), BAD),
        (post("{" + "a " * MAX_TOKENS + "}"), BAD),
        (post("{a}" + " " * MAX_SOURCE), BAD),
        (post([]), "bad_batch"),
        (post([{"query": "{a}"}] * (MAX_BATCH + 1)), "bad_batch"),
        (post("{" + "a " * (MAX_BATCH + 1) + "}"), "bad_batch"),
        (post("{a}", Query="{b}"), "ambiguous_member"),
        (post("{a}", operationname="b"), "ambiguous_member"),
        (get(query="mutation { b }"), "method_not_supported"),
        (get(query="query A { a } mutation B { b }", operationName="B"), "method_not_supported"),
        (get(query="{a}", QUERY="{b}"), "ambiguous_member"),
        (get(query="{a}", variables="{"), "ambiguous_query"),
        (request("g.example/graphql", {"query": "{a}"}, method="PUT"), "method_not_supported"),
        (request("g.example/graphql", b'{"query":"{a}","query":"{b}"}'), "unparsable_body"),
        (request("g.example/graphql", b"query={a}"), "unparsable_body"),
        (request("g.example/graphql", {"query": "{a}"}, headers=(JSON, ("content-encoding", "gzip"))), "encoded_body"),
        (RequestFacts("GET", "https", "g.example", 443, "/graphql", "query={a}&query={b}"), "ambiguous_query"),
        (
            RequestFacts("POST", "https", "g.example", 443, "/graphql", "query={b}", (JSON,), b'{"query":"{a}"}'),
            "ambiguous_query",
        ),
        (
            RequestFacts("POST", "https", "g.example", 443, "/graphql", "Query={b}", (JSON,), b'{"query":"{a}"}'),
            "ambiguous_query",
        ),
    ],
)
def test_what_could_be_read_in_two_ways_or_in_none_is_refused(facts: RequestFacts, reason: str) -> None:
    with pytest.raises(Unclassifiable) as caught:
        classify(CATALOG, facts)
    assert caught.value.reason == reason
