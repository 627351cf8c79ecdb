"""ModelsService: the names that a caller may ask for."""

import base64
from collections.abc import Callable

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
        size, start = request.page_size, _offset(request.page_token)
        if size < 0:
            raise GatewayError(ErrorKind.ERROR_KIND_INVALID_REQUEST, "'page_size' must not be negative.", param="page_size")
        models = [_model(listing) for listing in self._catalogue().listings() if call.allows(listing.id)]
        end = start + min(size, _LARGEST_PAGE) if size else len(models)
        return models_pb2.ModelsServiceListResponse(
            models=models[start:end], next_page_token=_token(end) if end < len(models) else ""
        )

    async def Get(self, request: models_pb2.ModelsServiceGetRequest, call: RpcCall) -> models_pb2.Model:  # noqa: N802 (the RPC's name)
        """Returns one model or agent."""
        for listing in self._catalogue().listings():
            if listing.id == request.id and call.allows(listing.id):
                return _model(listing)
        raise GatewayError(
            ErrorKind.ERROR_KIND_MODEL_NOT_FOUND,
            f"The model '{request.id[:MODEL_NAME_LIMIT]}' does not exist here. GET /v1/models lists those there are.",
            param="model",
        )


def _model(listing: Listing) -> models_pb2.Model:
    return models_pb2.Model(id=listing.id, owned_by=listing.owned_by, capabilities=sorted(listing.target.provider.capabilities))


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
        raise GatewayError(
            ErrorKind.ERROR_KIND_INVALID_REQUEST,
            "'page_token' is not one that this service gave out.",
            param="page_token",
        )
    return offset
