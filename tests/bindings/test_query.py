import pytest

from lictor.bindings.facts import Unclassifiable
from lictor.bindings.query import MAX_QUERY, read_query


def test_a_name_that_stands_more_than_once_has_a_list() -> None:
    assert read_query("a=1&b=x+%2B&a=2&a=3") == {"a": ["1", "2", "3"], "b": "x +"}
    assert read_query("") == {}


@pytest.mark.parametrize("query", ["a=1;b=2", "a=%2", "a=%ff", "&" * MAX_QUERY])
def test_what_servers_read_in_different_ways_is_refused(query: str) -> None:
    with pytest.raises(Unclassifiable) as caught:
        read_query(query)
    assert caught.value.reason == "ambiguous_query"
