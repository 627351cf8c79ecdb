"""TLS on both surfaces, with and without clients' certificates."""

import ssl
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
import trustme
from twinspan.v1 import models_pb2
from twinspan.v1.models_pb2_grpc import ModelsServiceStub

from tests.flows.running import TOKEN, configuration, running
from tests.flows.upstream import MODEL, Upstream

METADATA = (("authorization", f"Bearer {TOKEN}"),)


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


def files(directory: Path, authority: trustme.CA) -> dict[str, str]:
    """Writes what a server needs, and returns its configuration."""
    issued = authority.issue_cert("127.0.0.1", "localhost")
    issued.cert_chain_pems[0].write_to_path(directory / "cert.pem")
    issued.private_key_pem.write_to_path(directory / "key.pem")
    authority.cert_pem.write_to_path(directory / "ca.pem")
    return {"cert": str(directory / "cert.pem"), "key": str(directory / "key.pem")}


def sections(upstream: Upstream, tls: dict[str, str]) -> dict[str, Any]:
    listen = {"listen_addr": "127.0.0.1:0", "grpc_addr": "127.0.0.1:0", "log_level": "warning", "tls": tls}
    return configuration(upstream.base_url, server=listen)


async def listed_over_rest(url: str, context: ssl.SSLContext) -> list[str]:
    async with httpx.AsyncClient(verify=context, headers={"Authorization": f"Bearer {TOKEN}"}) as client:
        return [model["id"] for model in (await client.get(f"{url}/v1/models")).json()["data"]]


async def listed_over_grpc(target: str, credentials: grpc.ChannelCredentials) -> list[str]:
    async with grpc.aio.secure_channel(target, credentials) as channel:
        call = ModelsServiceStub(channel).List(models_pb2.ModelsServiceListRequest(), metadata=METADATA, timeout=5)
        return [model.id for model in (await call).models]


async def test_both_surfaces_speak_tls(upstream: Upstream, tmp_path: Path, authority: trustme.CA) -> None:
    async with running(sections(upstream, files(tmp_path, authority))) as twinspan:
        assert twinspan.url.startswith("https://")
        context = ssl.create_default_context()
        authority.configure_trust(context)
        assert await listed_over_rest(twinspan.url, context) == [MODEL]
        credentials = grpc.ssl_channel_credentials(authority.cert_pem.bytes())
        assert await listed_over_grpc(twinspan.target, credentials) == [MODEL]
        with pytest.raises(httpx.ConnectError):
            await listed_over_rest(twinspan.url, ssl.create_default_context())


async def test_clients_without_a_certificate_are_turned_away_where_one_is_asked_for(
    upstream: Upstream, tmp_path: Path, authority: trustme.CA
) -> None:
    tls = {**files(tmp_path, authority), "client_ca": str(tmp_path / "ca.pem")}
    async with running(sections(upstream, tls)) as twinspan:
        context = ssl.create_default_context()
        authority.configure_trust(context)
        with pytest.raises(httpx.TransportError):
            await listed_over_rest(twinspan.url, context)
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await listed_over_grpc(twinspan.target, grpc.ssl_channel_credentials(authority.cert_pem.bytes()))
        assert raised.value.code() == grpc.StatusCode.UNAVAILABLE
        issued = authority.issue_cert("client.example")
        issued.configure_cert(context)
        assert await listed_over_rest(twinspan.url, context) == [MODEL]
        credentials = grpc.ssl_channel_credentials(
            authority.cert_pem.bytes(), issued.private_key_pem.bytes(), issued.cert_chain_pems[0].bytes()
        )
        assert await listed_over_grpc(twinspan.target, credentials) == [MODEL]
        assert twinspan.complaints() == []
