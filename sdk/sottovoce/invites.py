"""Invite links: `sottovoce://chat.example/ACCOUNT-ID` pins an account, so that no directory is trusted for it.

Here stands the form of a link. Nothing in it is secret. Spec: contacts.
"""

from typing import Final

from sottovoce_wire.errors import Code, WireError
from sottovoce_wire.ids import AccountId, account_id_text, parse_account_id
from sottovoce_wire.origins import parse_origin

#: The link's scheme for each scheme of the server. Plain http is for one machine alone.
_SCHEMES: Final = {"https": "sottovoce", "http": "sottovoce+http"}
MAX_LINK: Final = 512


def invite_link(server: str, account_id: AccountId) -> str:
    """The link to an account at the server with this canonical origin."""
    scheme, _, host = server.partition("://")
    return f"{_SCHEMES[scheme]}://{host}/{account_id_text(account_id)}"


def is_link(text: str) -> bool:
    """Whether a text means to be an invite link."""
    return text.startswith(tuple(f"{scheme}://" for scheme in _SCHEMES.values()))


def parse_link(text: str) -> tuple[str, AccountId]:
    """The server's canonical origin and the account. Raises WireError (MALFORMED) for anything else."""
    if len(text) > MAX_LINK:
        raise WireError(Code.MALFORMED, "the invite link is too long")
    for server_scheme, scheme in _SCHEMES.items():
        if text.startswith(f"{scheme}://"):
            host, _, account = text.removeprefix(f"{scheme}://").partition("/")
            return parse_origin(f"{server_scheme}://{host}"), parse_account_id(account)
    raise WireError(Code.MALFORMED, "this is not an invite link")
