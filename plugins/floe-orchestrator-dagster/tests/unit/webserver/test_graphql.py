"""Every answer of a server is either read or refused with a message."""

from __future__ import annotations

import json
from contextlib import suppress

from hypothesis import given
from hypothesis import strategies as st

from floe_orchestrator_dagster.webserver.graphql import read_state, read_version
from floe_orchestrator_dagster.webserver.refusal import RefusalError

_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["data", "version", "errors", "message", "instance", "daemonHealth"])
            | st.text(max_size=5),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(answer=_JSON | st.binary(max_size=300))
def test_any_answer_is_read_or_refused(answer: object) -> None:
    body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
    with suppress(RefusalError):
        assert isinstance(read_version(body), str)
    with suppress(RefusalError):
        assert all(line.isprintable() for line in read_state(body))
