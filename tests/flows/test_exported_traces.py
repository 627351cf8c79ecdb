"""The same tree where bridge and core are processes of their own, exported over OTLP to a collector."""

from pathlib import Path
from typing import Any

import httpx

from tests.flows.commands import configure, started
from tests.flows.running import TOKEN
from tests.flows.test_traces import HELLO, core, over_http, without_times
from tests.flows.upstream import Upstream
from tests.gateway.telemetry.collector import grpc_collector

HEADERS = {"Authorization": f"Bearer {TOKEN}", "User-Agent": "test"}


async def test_bridge_and_core_in_separate_processes_give_one_tree(upstream: Upstream, tmp_path: Path) -> None:
    configure(tmp_path, upstream.base_url)
    async with grpc_collector() as collector:
        variables: dict[str, Any] = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint,
            "OTEL_METRICS_EXPORTER": "none",
            "TWINSPAN_SECRETS_DIR": str(tmp_path / "secrets"),
        }
        async with started("core", cwd=tmp_path, **variables) as core_process:
            target = (await core_process.until(r"^gRPC\s+(\S+)"))[1]
            async with started("bridge", "--core", target, cwd=tmp_path, **variables) as bridge_process:
                url = (await bridge_process.until(r"^REST\s+(http\S+)/v1"))[1]
                async with httpx.AsyncClient(base_url=url, headers=HEADERS) as client:
                    answer = await client.post("/v1/chat/completions", json={**HELLO, "stream": True})
                    assert answer.text.endswith("data: [DONE]\n\n")
        # Both have ended, and have sent what they had.
        (tree,) = collector.trees()
    assert without_times(tree) == over_http(core(upstream, stream=True), "Stream")
    assert collector.resource()["service.name"] == "twinspan"
