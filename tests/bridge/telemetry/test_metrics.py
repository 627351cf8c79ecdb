from prometheus_client import CollectorRegistry, Counter
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from bridge.telemetry.metrics import HttpMetrics


def test_requests_are_counted_by_method_route_and_status() -> None:
    metrics = HttpMetrics(CollectorRegistry())
    for status in (200, 200, 429):
        metrics.count("POST", "/v1/chat/completions", status)
    metrics.count("BREW", "(none)", 404)
    metrics.count("MAKE-UP", "(none)", 404)

    body, content_type = metrics.render("application/openmetrics-text; version=1.0.0")

    assert content_type.startswith("application/openmetrics-text")
    samples = {
        tuple(sample.labels.values()): sample.value
        for family in text_string_to_metric_families(body.decode())  # type: ignore[no-untyped-call]  # has no types
        for sample in family.samples
    }
    assert samples == {
        ("POST", "/v1/chat/completions", "200"): 2,
        ("POST", "/v1/chat/completions", "429"): 1,
        ("_OTHER", "(none)", "404"): 2,
    }


def test_what_else_the_registry_holds_is_shown_too() -> None:
    registry = CollectorRegistry()
    Counter("other", "Another's.", registry=registry).inc()

    body, content_type = HttpMetrics(registry).render("*/*")

    assert content_type.startswith("text/plain")
    assert b"other_total 1.0" in body
