"""What a running gateway shows to Prometheus, and whether document, dashboard and alerts speak of that and of nothing else."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as plain_text

from tests.flows.promql import QueryError, Series, checked, series_of
from tests.flows.running import configuration, running
from tests.flows.test_batches import begin, ended, line, written
from tests.flows.upstream import MODEL, USAGE, Upstream, chunk, completion, says, streams, whole

ROOT = Path(__file__).parents[2]
DASHBOARD: dict[str, Any] = json.loads((ROOT / "deploy/grafana/twinspan.json").read_text(encoding="utf-8"))
ALERTS: dict[str, Any] = yaml.safe_load((ROOT / "deploy/prometheus/alerts.yml").read_text(encoding="utf-8"))
PRICES = {"input_cost_per_1m": 3, "output_cost_per_1m": 15}
READER = "ts-reader-of-the-tests-1"
OPENMETRICS = "application/openmetrics-text; version=1.0.0,text/plain;q=0.5"


@dataclass(frozen=True)
class Scrape:
    """What one gateway showed after a load of a bit of everything."""

    text: list[Metric]
    openmetrics: list[Metric]

    @property
    def series(self) -> Series:
        return series_of([sample for family in self.text for sample in family.samples])


def hello(model: str, *, stream: bool = False) -> dict[str, Any]:
    return {"model": model, "stream": stream, "messages": [{"role": "user", "content": "Hello"}]}


@pytest.fixture
async def scrape(upstream: Upstream, tmp_path: Path) -> Scrape:
    details = {"prompt_tokens_details": {"cached_tokens": 4}, "completion_tokens_details": {"reasoning_tokens": 1}}
    thoughtful = whole(completion({"role": "assistant", "content": "Hi."}, usage={**USAGE, **details}))
    async with Upstream() as broken:
        broken.plays(whole({"error": {"message": "Oops."}}, 500))
        secret = {"api_key": "upstream-secret-key"}
        sections = configuration(
            upstream.base_url,
            providers={
                "acme": {
                    **secret,
                    "base_url": upstream.base_url,
                    "models": [MODEL, "spare"],
                    "model_info": {MODEL: PRICES},
                    "ratelimit_max_rpm": 600,
                    "ratelimit_max_tpm": 600000,
                },
                "broken": {**secret, "base_url": broken.base_url, "models": ["one", "two"]},
            },
            agents={
                "smart": {"models": ["one", MODEL], "max_retries": 1, "failure_threshold": 1},
                "doomed": {"models": ["one", "two"]},
                "poor": {"models": [MODEL], "budget_limit_usd": 0.00001},
                "stays": {
                    "models": [MODEL, "spare"],
                    "strategy": "sticky",
                    "failure_threshold": 1,
                },
            },
            discovery={"enabled": True},
            api_keys=[
                {"name": "reader", "token": READER, "roles": ["read-only"]},
                {"name": "slow", "token": "ts-a-key-that-may-ask-once", "rpm": 1},
            ],
            files={"dir": str(tmp_path / "files")},
        )
        async with running(sections) as twinspan, twinspan.openai() as sdk:
            upstream.plays(says("Hi."), whole({"error": {"message": "Oops."}}, 500), says("Hi."))
            for _ in range(4):
                await twinspan.chat(hello("stays"))
            upstream.plays(thoughtful, says("Hi", "."), streams(chunk({"content": "Hi"}), ConnectionError()), says("Hi."))
            await twinspan.chat(hello("smart"))
            await twinspan.chat(hello(MODEL, stream=True))
            await twinspan.chat(hello(MODEL, stream=True))
            await twinspan.chat(hello("doomed"))
            await twinspan.chat(hello("poor"))
            for authorization in ("Bearer ts-nobody-of-the-tests-12", "", f"Bearer {READER}"):
                await twinspan.chat(hello(MODEL), Authorization=authorization)
            for _ in range(2):
                await twinspan.chat(hello(MODEL), Authorization="Bearer ts-a-key-that-may-ask-once")
            await twinspan.rest.post("/proxy/acme/v1/anything", content=b"{}")
            for path in ("/v1/models", "/v1/files", "/statsz"):
                await twinspan.rest.get(path)
            await ended(sdk, await begin(sdk, written(line(1), line(2, body={"model": "nobody-has-this"}))))
            text = await twinspan.rest.get("/metrics")
            open_text = await twinspan.rest.get("/metrics", headers={"Accept": OPENMETRICS})
    assert open_text.headers["Content-Type"].startswith("application/openmetrics-text; version=1.0.0")
    return Scrape(
        list(plain_text(text.text)),
        list(openmetrics(open_text.text)),  # type: ignore[no-untyped-call]  # it has no types
    )


def names(families: list[Metric]) -> set[str]:
    return {sample.name for family in families for sample in family.samples if not sample.name.endswith("_created")}


async def test_both_formats_show_the_same_and_openmetrics_has_traces_besides(scrape: Scrape) -> None:
    assert names(scrape.text) == names(scrape.openmetrics)
    exemplars = {
        family.name
        for family in scrape.openmetrics
        for sample in family.samples
        if sample.exemplar is not None and re.fullmatch(r"[0-9a-f]{32}", sample.exemplar.labels["trace_id"])
    }
    assert exemplars == {f"twinspan_{name}_seconds" for name in ("request_duration", "upstream_request_duration", "ttft")}


async def test_the_document_names_every_metric_of_a_running_gateway_and_no_other(scrape: Scrape) -> None:
    document = (ROOT / "docs/metrics.md").read_text(encoding="utf-8")
    documented = dict(re.findall(r"^\| `(twinspan_\w+)` \| (\w+) \|", document, re.MULTILINE))
    suffixes = {"histogram": "_bucket"}
    wanted = {name + suffixes.get(kind, "") for name, kind in documented.items()}
    live = {name for name in names(scrape.text) if name.startswith("twinspan_") and not name.endswith(("_sum", "_count"))}
    assert live == wanted
    labels = dict(re.findall(r"^\| `(twinspan_\w+)` \| \w+ \|([^|]*)\|", document, re.MULTILINE))
    for name, kind in documented.items():
        of_sample = set(scrape.series[name + suffixes.get(kind, "")]) - {"job", "instance", "le"}
        assert of_sample == set(re.findall(r"`(\w+)`", labels[name])), name


def panels() -> Iterator[dict[str, Any]]:
    for panel in DASHBOARD["panels"]:
        yield panel
        yield from panel.get("panels", [])


def as_promql(query: str) -> str:
    """Returns a query as Prometheus gets it: Grafana's own variables have their values, the user's stay in their strings."""
    return query.replace("$__rate_interval", "5m").replace("$__range", "1h").replace("$__interval", "1m")


def legend_labels(legend: str) -> set[str]:
    return set(re.findall(r"{{\s*(\w+)\s*}}", legend))


async def test_every_query_of_the_dashboard_asks_for_what_there_is(scrape: Scrape) -> None:
    asked = 0
    for panel in panels():
        for target in panel.get("targets", []):
            labels = checked(as_promql(target["expr"]), scrape.series)
            assert legend_labels(target["legendFormat"]) <= labels, (panel["title"], target["legendFormat"], labels)
            asked += 1
    for annotation in DASHBOARD["annotations"]["list"]:
        labels = checked(as_promql(annotation["expr"]), scrape.series)
        assert legend_labels(annotation["textFormat"]) <= labels
    for variable in DASHBOARD["templating"]["list"]:
        if variable["type"] == "query":
            query = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["definition"])
            assert query is not None
            assert query[2] in checked(query[1], scrape.series)
            assert variable["query"]["query"] == variable["definition"]
    assert asked > 60


def test_the_dashboard_can_be_imported() -> None:
    ids = [panel["id"] for panel in panels()]
    assert len(set(ids)) == len(ids)
    assert (DASHBOARD["id"], DASHBOARD["uid"], DASHBOARD["schemaVersion"]) == (None, "twinspan", 42)
    variables = [variable["name"] for variable in DASHBOARD["templating"]["list"]]
    assert variables == ["datasource", "job", "instance", "provider", "model", "agent"]
    used = set(re.findall(r"\$\{?(\w+)", json.dumps(DASHBOARD)))
    assert used <= {*variables, "__rate_interval", "__range", "__interval", "__all"}
    places: set[tuple[int, int]] = set()
    for panel in panels():
        if panel["type"] == "row":
            continue
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        assert panel["description"]
        assert panel["targets"]
        place = panel["gridPos"]
        cells = {(x, y) for x in range(place["x"], place["x"] + place["w"]) for y in range(place["y"], place["y"] + place["h"])}
        assert max(x for x, _ in cells) < 24
        assert not cells & places, panel["title"]
        places |= cells


def rules() -> list[dict[str, Any]]:
    return [rule for group in ALERTS["groups"] for rule in group["rules"]]


async def test_every_alert_asks_for_what_there_is_and_says_why_it_matters(scrape: Scrape) -> None:
    for rule in rules():
        labels = checked(rule["expr"], scrape.series)
        said: Mapping[str, str] = rule["annotations"]
        assert set(re.findall(r"\$labels\.(\w+)", " ".join(said.values()))) <= labels, rule["alert"]
        assert said["summary"]
        assert said["description"]
        assert rule["labels"]["severity"] in {"critical", "warning"}
    text = (ROOT / "deploy/prometheus/alerts.yml").read_text(encoding="utf-8")
    assert len(re.findall(r"^ +- alert: \w+\n +# ", text, re.MULTILINE)) == len(rules())


@pytest.mark.parametrize(
    ("query", "complaint"),
    [
        ("rate(twinspan_made_up_total[5m])", "no metric twinspan_made_up_total"),
        ('twinspan_retries_total{model="m"}', "no label model"),
        ('twinspan_tokens_total{direction="sideways"}', "never has"),
        ("sum by (model) (twinspan_retries_total)", "which is not there"),
        ("histogram_quantile(0.5, sum by (model) (rate(twinspan_ttft_seconds_bucket[5m])))", "lost its buckets"),
        ("sum by (model) (twinspan_tokens_total) / sum by (agent) (twinspan_tokens_total)", "on the other"),
        ("1 + 1", "is a number"),
    ],
)
async def test_a_query_for_what_there_is_not_would_be_found(scrape: Scrape, query: str, complaint: str) -> None:
    with pytest.raises(QueryError, match=complaint):
        checked(query, scrape.series)
