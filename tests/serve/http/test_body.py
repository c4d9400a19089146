"""Bodies are read as the standard library reads them, or refused."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pelton.serve.http.body import read_json

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(st.characters(codec=None)),  # lone surrogates too
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(VALUES, st.booleans())
def test_documents_are_read_as_the_standard_library_reads_them(value: object, escaped: bool) -> None:
    document = json.dumps(value, ensure_ascii=escaped).encode("utf-8", "surrogatepass")
    try:
        document.decode()
    except UnicodeDecodeError:  # halves of pairs are no UTF-8
        with pytest.raises(json.JSONDecodeError):
            read_json(document)
    else:
        assert repr(read_json(document)) == repr(json.loads(document))


def test_what_is_no_number_in_json_is_read_as_python_writes_it() -> None:
    read = read_json(b"[NaN, Infinity, -Infinity, 1e999]")
    assert math.isnan(read[0])
    assert read[1:] == [math.inf, -math.inf, math.inf]


@pytest.mark.parametrize(
    "body",
    [b"", b"[1,]", b"{} {}", b"\xff", b"[" * 10**6, b"9" * 5000, b'["\\ud800"', b'"\\ud800"' + b"[" * 10**5],
    ids=range(8),
)
def test_others_are_refused(body: bytes) -> None:
    with pytest.raises(json.JSONDecodeError):
        read_json(body)
