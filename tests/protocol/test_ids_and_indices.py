"""Ids that Elasticsearch takes, and names that an index may have."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callboard.protocol.ids import InvalidDocumentId, document_id, id_for_log, is_shortened
from callboard.protocol.indices import InvalidIndexName, acl_index, check_index_name, content_index


@pytest.mark.parametrize("text", ["x" * 512, "ä" * 256, "a"])
def test_an_id_that_fits_is_kept(text: str) -> None:
    assert document_id(text) == text
    assert not is_shortened(text)


@pytest.mark.parametrize("text", ["x" * 513, "ä" * 257, "\ud800"])
def test_an_id_that_does_not_fit_is_hashed(text: str) -> None:
    assert document_id(text) == hashlib.md5(text.encode("utf-8", "surrogatepass")).hexdigest()
    assert is_shortened(text)


@given(st.text(alphabet=st.characters(), min_size=1, max_size=600) | st.integers() | st.floats() | st.uuids())
def test_every_id_becomes_one_that_elasticsearch_takes(source_id: object) -> None:
    assert 0 < len(document_id(source_id).encode()) <= 512
    assert document_id(source_id) == document_id(source_id)


@pytest.mark.parametrize("nothing", [None, ""])
def test_no_id_is_an_error(nothing: object) -> None:
    with pytest.raises(InvalidDocumentId, match="no id"):
        document_id(nothing)
    assert document_id(0) == "0"


def test_long_ids_are_shortened_in_logs() -> None:
    assert id_for_log("short") == "short"
    assert id_for_log("0123456789" * 3) == "01234567...23456789"


@pytest.mark.parametrize("name", ["search-a", "a", "1.2", ".hidden", "x" * 255, "büch", "content-a_b+c-d"])
def test_names_that_an_index_may_have(name: str) -> None:
    assert check_index_name(name) == name


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "_a", "-a", "+a", "A", *(f"a{bad}b" for bad in '\\/*?"<>| ,#:\t\n\x00'), "x" * 256, "ä" * 128],
)
def test_names_that_it_may_not_have(name: str) -> None:
    with pytest.raises(InvalidIndexName) as refused:
        check_index_name(name)
    assert refused.value.why in str(refused.value)


def test_the_index_of_an_elastic_managed_connector_says_so() -> None:
    assert check_index_name("content-a", is_native=True)
    with pytest.raises(InvalidIndexName, match="content-"):
        check_index_name("search-a", is_native=True)


def test_content_and_access_control_indices_belong_together() -> None:
    assert acl_index("a") == ".search-acl-filter-a" == acl_index(acl_index("a"))
    assert content_index(acl_index("a")) == "a" == content_index("a")
