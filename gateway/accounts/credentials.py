"""How each kind of credential is sent, and a provider as it is asked through each of its accounts.

It is done once, when a configuration is compiled: a request takes one of the variants and pays nothing for it. Pure.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final, Protocol

from pydantic import SecretStr

from gateway.providers.provider import Provider

_ANTHROPIC: Final = "anthropic"
_ANTHROPIC_VERSION: Final = {"anthropic-version": "2023-06-01"}


class Account(Protocol):
    """A credential, as it is configured."""

    @property
    def id(self) -> str:
        """Its name."""

    @property
    def type(self) -> str:
        """What it is: `apikey`, `oauth` or `cookie`."""

    @property
    def credential(self) -> SecretStr:
        """The credential itself."""


def credential_headers(style: str, credential: str, kind: str = "apikey") -> dict[str, str]:
    """Returns the headers with which a credential is sent; none for none.

    Args:
        style: How the provider wants API keys: its `auth_style`.
        credential: The credential.
        kind: What it is: `apikey`, `oauth` or `cookie`.
    """
    if not credential:
        return {}
    if kind != "apikey":
        own = {"Cookie": credential} if kind == "cookie" else {"Authorization": f"Bearer {credential}"}
        return own | (_ANTHROPIC_VERSION if style == _ANTHROPIC else {})
    match style:
        case "anthropic":
            return {"x-api-key": credential, **_ANTHROPIC_VERSION}
        case "azure":
            return {"api-key": credential}
        case "bearer+x-goog":
            return {"Authorization": f"Bearer {credential}", "x-goog-api-key": credential}
        case "none":
            return {}
        case _:
            return {"Authorization": f"Bearer {credential}"}


def with_accounts(provider: Provider, accounts: Sequence[Account], style: str) -> Provider:
    """Returns a provider with its accounts, as it is asked through the first of them where none is chosen.

    Args:
        provider: The provider, without any credential.
        accounts: Its accounts. With one alone there is nothing to choose, and it is the provider's credential like any other.
        style: The provider's `auth_style`.
    """
    variants = tuple(_through(provider, account, style) for account in accounts)
    if not variants:
        return provider
    if len(variants) == 1:
        return replace(variants[0], account="")
    # An error may repeat a credential in whatever account's name it was sent, so each variant keeps all of them out.
    secrets = tuple(secret for variant in variants for secret in variant.secrets)
    variants = tuple(replace(variant, secrets=secrets) for variant in variants)
    return replace(variants[0], account="", accounts=variants)


def _through(provider: Provider, account: Account, style: str) -> Provider:
    credential = account.credential.get_secret_value()
    own = credential_headers(style, credential, account.type)
    return replace(
        provider,
        account=account.id,
        headers={**own, **provider.headers},  # what is configured as a header goes before
        own_headers={**own, **provider.own_headers},
        secrets=(credential,),
    )
