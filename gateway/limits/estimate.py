"""How many tokens a request may take, told from its length: rough, and never slow. Pure."""

from typing import Final

_BYTES_A_TOKEN: Final = 4


def roughly_tokens(length: int) -> int:
    """Returns about how many tokens so many bytes of text or JSON are; English has some four bytes to a token."""
    return -(-length // _BYTES_A_TOKEN)
