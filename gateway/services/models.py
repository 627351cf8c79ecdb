"""ModelsService: the names that a caller may ask for."""

import base64
from collections.abc import Callable, Sequence

from twinspan.v1 import models_pb2
from twinspan.v1.errors_pb2 import ErrorKind

from gateway.errors import GatewayError
from gateway.routing.catalogue import MODEL_NAME_LIMIT, Catalogue, Listing
from gateway.rpc.call import RpcCall

_LARGEST_PAGE = 1000


class ModelsService:
    """Serves `twinspan.v1.ModelsService`."""

    def __init__(self, catalogue: Callable[[], Catalogue]) -> None:
        self._catalogue = catalogue

    async def List(  # noqa: N802 (the RPC's name)
        self, request: models_pb2.ModelsServiceListRequest, call: RpcCall
    ) -> models_pb2.ModelsServiceListResponse:
        """Lists what the caller's key may use."""
        listings = [listing for listing in self._catalogue().listings() if call.allows(listing.id)]
        start, end = _page(request, listings)
        return models_pb2.ModelsServiceListResponse(
            models=[_model(listing) for listing in listings[start:end]],
            next_page_token=_token(end) if end < len(listings) else "",
            has_more=start > 0 if request.before_id else end < len(listings),
        )

    async def Get(self, request: models_pb2.ModelsServiceGetRequest, call: RpcCall) -> models_pb2.Model:  # noqa: N802 (the RPC's name)
        """Returns one model or agent."""
        listing = self._catalogue().listing(request.id)
        if listing is not None and call.allows(listing.id):
            return _model(listing)
        raise GatewayError(
            ErrorKind.ERROR_KIND_MODEL_NOT_FOUND,
            f"The model '{request.id[:MODEL_NAME_LIMIT]}' does not exist here. GET /v1/models lists those there are.",
            param="model",
        )


def _model(listing: Listing) -> models_pb2.Model:
    facts = listing.target.facts
    prices = facts.prices
    return models_pb2.Model(
        id=listing.id,
        created=facts.created,
        owned_by=listing.owned_by,
        context_window=facts.context_window,
        max_tokens=facts.max_tokens,
        capabilities=sorted(listing.target.capabilities),
        input_cost_per_1m=prices.input if prices else None,
        output_cost_per_1m=prices.output if prices else None,
        cached_input_cost_per_1m=prices.cached_input if prices else None,
        source=models_pb2.ModelSource.Value(f"MODEL_SOURCE_{listing.source.upper()}"),
    )


def _page(request: models_pb2.ModelsServiceListRequest, listings: Sequence[Listing]) -> tuple[int, int]:
    """Returns where the page begins and ends that is asked for.

    Raises:
        GatewayError: There is none such.
    """
    if request.page_size < 0:
        raise _invalid("page_size", "must not be negative.")
    if sum(map(bool, (request.page_token, request.after_id, request.before_id))) > 1:
        raise _invalid("page_token", "cannot stand beside 'after_id' or 'before_id', nor these two together: give one of them.")
    count = len(listings)
    size = min(request.page_size, _LARGEST_PAGE) or count
    if request.before_id:
        end = _place("before_id", request.before_id, listings)
        return max(0, end - size), end
    start = _place("after_id", request.after_id, listings) + 1 if request.after_id else _offset(request.page_token)
    return start, min(start + size, count)


def _place(field: str, name: str, listings: Sequence[Listing]) -> int:
    for place, listing in enumerate(listings):
        if listing.id == name:
            return place
    raise _invalid(field, "is not the id of a model in this list. The list may have changed: begin it anew.")


def _token(offset: int) -> str:
    return base64.urlsafe_b64encode(str(offset).encode()).decode()


def _offset(token: str) -> int:
    if not token:
        return 0
    try:
        offset = int(base64.urlsafe_b64decode(token))
    except ValueError:
        offset = -1
    if offset < 0:
        raise _invalid("page_token", "is not one that this service gave out.")
    return offset


def _invalid(field: str, what: str) -> GatewayError:
    return GatewayError(ErrorKind.ERROR_KIND_INVALID_REQUEST, f"'{field}' {what}", param=field)
