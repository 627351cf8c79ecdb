"""KeysService: keys and teams that administrators make while the gateway runs."""

from collections.abc import Mapping
from typing import Any

from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message
from twinspan.v1 import keys_pb2
from twinspan.v1.errors_pb2 import ErrorKind

from gateway.errors import GatewayError
from gateway.keystore.desk import KeyDesk
from gateway.keystore.records import StoredKey, StoredTeam
from gateway.rpc.call import RpcCall
from gateway.services.ownership import caller_name
from gateway.services.pages import bad_token, page_size, place_of, token_after

_LIMITS = ("rpm", "tpm", "max_parallel", "budget_usd", "budget_period")
_NOT_SETTABLE = frozenset({"id", "name", "update_mask"})


class KeysService:
    """Serves `twinspan.v1.KeysService`."""

    def __init__(self, desk: KeyDesk) -> None:
        """Makes the service over the desk that does the work."""
        self._desk = desk

    async def CreateKey(self, request: keys_pb2.CreateKeyRequest, call: RpcCall) -> keys_pb2.CreateKeyResponse:  # noqa: N802 (the RPC's name)
        """Makes a key."""
        key, token = await self._desk.create_key(_given(request), caller_name(call))
        return keys_pb2.CreateKeyResponse(key=_key(key), token=token)

    async def GetKey(self, request: keys_pb2.GetKeyRequest, _call: RpcCall) -> keys_pb2.Key:  # noqa: N802 (the RPC's name)
        """Returns a key."""
        return _key(await self._desk.key(request.id))

    async def ListKeys(self, request: keys_pb2.ListKeysRequest, _call: RpcCall) -> keys_pb2.ListKeysResponse:  # noqa: N802 (the RPC's name)
        """Lists keys."""
        size = page_size(request.page_size)
        found = await self._desk.keys(place_of(request.page_token), size + 1)
        keys = found[:size]
        following = token_after(keys[-1].id or f"={keys[-1].name}") if len(found) > size else ""
        return keys_pb2.ListKeysResponse(keys=map(_key, keys), next_page_token=following)

    async def UpdateKey(self, request: keys_pb2.UpdateKeyRequest, call: RpcCall) -> keys_pb2.UpdateKeyResponse:  # noqa: N802 (the RPC's name)
        """Changes a key."""
        key = await self._desk.update_key(request.id, _changes(request), caller_name(call))
        return keys_pb2.UpdateKeyResponse(key=_key(key))

    async def RotateKey(self, request: keys_pb2.RotateKeyRequest, call: RpcCall) -> keys_pb2.RotateKeyResponse:  # noqa: N802 (the RPC's name)
        """Gives a key a new token."""
        key, token = await self._desk.rotate_key(request.id, request.overlap_seconds, caller_name(call))
        return keys_pb2.RotateKeyResponse(key=_key(key), token=token)

    async def RevokeKey(self, request: keys_pb2.RevokeKeyRequest, call: RpcCall) -> keys_pb2.RevokeKeyResponse:  # noqa: N802 (the RPC's name)
        """Ends a key for good."""
        return keys_pb2.RevokeKeyResponse(key=_key(await self._desk.revoke_key(request.id, caller_name(call))))

    async def CreateTeam(self, request: keys_pb2.CreateTeamRequest, call: RpcCall) -> keys_pb2.CreateTeamResponse:  # noqa: N802 (the RPC's name)
        """Makes a team."""
        return keys_pb2.CreateTeamResponse(team=_team(await self._desk.create_team(_given(request), caller_name(call))))

    async def ListTeams(self, request: keys_pb2.ListTeamsRequest, _call: RpcCall) -> keys_pb2.ListTeamsResponse:  # noqa: N802 (the RPC's name)
        """Lists teams."""
        size = page_size(request.page_size)
        found = await self._desk.teams(place_of(request.page_token), size + 1)
        following = token_after(found[size - 1].name) if len(found) > size else ""
        return keys_pb2.ListTeamsResponse(teams=map(_team, found[:size]), next_page_token=following)

    async def UpdateTeam(self, request: keys_pb2.UpdateTeamRequest, call: RpcCall) -> keys_pb2.UpdateTeamResponse:  # noqa: N802 (the RPC's name)
        """Changes a team."""
        team = await self._desk.update_team(request.name, _changes(request), caller_name(call))
        return keys_pb2.UpdateTeamResponse(team=_team(team))

    async def DeleteTeam(self, request: keys_pb2.DeleteTeamRequest, call: RpcCall) -> keys_pb2.DeleteTeamResponse:  # noqa: N802 (the RPC's name)
        """Deletes a team."""
        await self._desk.delete_team(request.name, caller_name(call))
        return keys_pb2.DeleteTeamResponse(name=request.name)

    async def ListAuditEvents(  # noqa: N802 (the RPC's name)
        self, request: keys_pb2.ListAuditEventsRequest, _call: RpcCall
    ) -> keys_pb2.ListAuditEventsResponse:
        """Lists what administrators did."""
        size = page_size(request.page_size)
        found = await self._desk.events(_event_id(place_of(request.page_token)), size + 1)
        following = token_after(str(found[size - 1].id)) if len(found) > size else ""
        events = [
            keys_pb2.AuditEvent(id=it.id, at=it.at, actor=it.actor, act=it.act, subject=it.subject, fields=it.fields)
            for it in found[:size]
        ]
        return keys_pb2.ListAuditEventsResponse(events=events, next_page_token=following)


def _given(request: Message) -> dict[str, Any]:
    """Returns the fields that a request gives, by name."""
    return {field.name: _plain(value) for field, value in request.ListFields() if field.name != "update_mask"}


def _changes(request: "keys_pb2.UpdateKeyRequest | keys_pb2.UpdateTeamRequest") -> Mapping[str, Any]:
    """Returns the fields that a request changes, by name; None for those that it sets to none.

    Raises:
        GatewayError: It names one that cannot be changed.
    """
    given = {name: value for name, value in _given(request).items() if name not in _NOT_SETTABLE}
    if request.HasField("update_mask"):
        given = {name: given.get(name) for name in _masked(request, request.update_mask)}
    if given.get("team") == "":
        given["team"] = None
    if "roles" in given and given["roles"] is None:
        given["roles"] = []  # which the form refuses: what a key may do is to be said
    return given


def _masked(request: Message, mask: FieldMask) -> list[str]:
    known = {field.name for field in request.DESCRIPTOR.fields} - _NOT_SETTABLE
    for path in mask.paths:
        if path not in known:
            raise GatewayError(
                ErrorKind.ERROR_KIND_INVALID_REQUEST,
                f"'{path[:64]}' is no field that can be changed. Those are: {', '.join(sorted(known))}.",
                param="update_mask",
            )
    return list(mask.paths)


def _plain(value: Any) -> Any:
    return value if isinstance(value, str | int | float) else list(value)


def _event_id(place: str) -> int | None:
    if not place:
        return None
    if not (place.isascii() and place.isdigit() and len(place) < len(str(2**63))):
        raise bad_token()
    return int(place)


def _key(key: StoredKey) -> keys_pb2.Key:
    return keys_pb2.Key(
        id=key.id,
        name=key.name,
        roles=key.roles,
        allowed_agents=key.allowed_agents,
        allowed_endpoints=key.allowed_endpoints,
        created_at=key.created_at,
        expires_at=key.expires_at,
        enabled=key.enabled,
        team=key.team,
        created_by=key.created_by,
        revoked_at=key.revoked_at,
        source="store" if key.id else "configuration",
        **_limits(key),
    )


def _team(team: StoredTeam) -> keys_pb2.Team:
    return keys_pb2.Team(
        name=team.name,
        created_at=team.created_at,
        created_by=team.created_by,
        source="store" if team.created_by else "configuration",
        **_limits(team),
    )


def _limits(record: StoredKey | StoredTeam) -> dict[str, Any]:
    return {name: getattr(record.allowance, name) for name in _LIMITS}
