"""Pages of lists: how many entries they have, and the tokens that lead from one to the next."""

import base64

from twinspan.v1.errors_pb2 import ErrorKind

from gateway.errors import GatewayError

_USUAL, _MOST = 50, 500


def page_size(given: int) -> int:
    """Returns how many entries a page has at most.

    Raises:
        GatewayError: What was asked for is negative.
    """
    if given < 0:
        raise GatewayError(ErrorKind.ERROR_KIND_INVALID_REQUEST, "'page_size' must not be negative.", param="page_size")
    return min(given or _USUAL, _MOST)


def token_after(place: str) -> str:
    """Returns the token of the page that begins after a place."""
    return base64.urlsafe_b64encode(place.encode()).decode()


def place_of(token: str) -> str:
    """Returns the place after which a page begins; empty for the first page.

    Raises:
        GatewayError: The token is none of `token_after`.
    """
    try:
        return base64.b64decode(token.encode(), altchars=b"-_", validate=True).decode()
    except ValueError:
        raise bad_token() from None


def bad_token() -> GatewayError:
    """Returns the error of a token that leads nowhere."""
    return GatewayError(
        ErrorKind.ERROR_KIND_INVALID_REQUEST, "'page_token' is not one that this service gave out.", param="page_token"
    )
