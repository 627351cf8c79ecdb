"""How many tokens a request may take, told from its length: rough, and never slow. Pure."""

from typing import Final, NamedTuple

_BYTES_A_TOKEN: Final = 4


def roughly_tokens(length: int) -> int:
    """Returns about how many tokens so many bytes of text or JSON are; English has some four bytes to a token."""
    return -(-length // _BYTES_A_TOKEN)


class Size(NamedTuple):
    """How many tokens a request may take.

    Attributes:
        input_tokens: What it sends.
        output_tokens: The most that it lets the model write; 0 if it does not say.
    """

    input_tokens: int
    output_tokens: int = 0

    @property
    def total(self) -> int:
        """Both together."""
        return self.input_tokens + self.output_tokens
