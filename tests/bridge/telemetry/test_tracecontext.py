from aiohttp.test_utils import make_mocked_request
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from bridge.telemetry import tracecontext as bridge
from gateway.telemetry import tracecontext as gateway
from tests.gateway.telemetry.trees import PARENT, PARENT_SPAN

TRACEPARENTS = st.one_of(
    st.from_regex(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}(-x)?", fullmatch=True),
    st.sampled_from([f"00-{PARENT}-{PARENT_SPAN}-0{flags}" for flags in range(10)]),
    st.text(alphabet="0123456789abcdefF- ", max_size=60),
)
HEADERS = st.lists(
    st.one_of(
        st.tuples(st.just("traceparent"), TRACEPARENTS),
        st.tuples(st.just("tracestate"), st.sampled_from(["a=1", "b=2,c=3", "broken", ""])),
    ),
    max_size=4,
)


@given(HEADERS)
def test_headers_and_metadata_are_read_alike(headers: list[tuple[str, str]]) -> None:
    request = make_mocked_request("GET", "/", headers=CIMultiDict(headers))

    found = bridge.incoming(request)

    assert found == gateway.incoming(headers)
    assert bridge.is_sampled(found) == gateway.is_sampled(found)
    assert bridge.context_of(found).keys() == gateway.context_of(found).keys()


@given(HEADERS)
def test_what_the_bridge_passes_on_the_core_reads_unchanged(headers: list[tuple[str, str]]) -> None:
    passed = bridge.incoming(make_mocked_request("GET", "/", headers=CIMultiDict(headers)))

    assert gateway.incoming(passed) == passed
