"""What the commands about other accounts do: requests, contacts, blocking, links, safety numbers."""

from typing import Final

import trio

from .. import Contact, Request
from .commands import Place, opened, printable

#: Seconds that `requests` waits for what lies at the relay.
PATIENCE: Final = 10.0
#: Messages of a request that are printed.
SHOWN: Final = 20


async def requests(place: Place) -> None:
    """Print what strangers have written."""
    async with opened(place) as client:
        with trio.move_on_after(PATIENCE):
            await client.wait_caught_up()
        waiting = await client.requests()
    for request in waiting:
        print(_request(request))
    print("accept, decline or block them by their account id" if waiting else "nobody waits to be accepted")


async def answer(place: Place, who: str, answer: str) -> None:
    """Accept, decline, block or unblock an account."""
    async with opened(place) as client:
        acts = {
            "accept": client.accept,
            "decline": client.decline,
            "block": client.block,
            "unblock": client.unblock,
        }
        await acts[answer](who)


async def contacts(place: Place) -> None:
    """Print every contact and every blocked account."""
    async with opened(place) as client:
        for contact in await client.contacts():
            print(_contact(contact))


async def link(place: Place) -> None:
    """Print the invite link."""
    async with opened(place) as client:
        print(client.invite_link())


async def verify(place: Place, who: str, confirmed: bool) -> None:
    """Print the safety number with an account, or note that it was compared."""
    async with opened(place) as client:
        if confirmed:
            await client.set_verified(who)
            print("noted as compared")
            return
        groups = (await client.safety_number(who)).digits.split()
    print("\n".join(" ".join(groups[start : start + 4]) for start in range(0, len(groups), 4)))


def _request(request: Request) -> str:
    texts = [printable(message.text).replace("\n", "\n    ") for message in request.messages[:SHOWN]]
    more = len(request.messages) + request.dropped - len(texts)
    if more:
        texts.append(f"… and {more} more, {request.dropped} of which were too many to keep")
    return "\n  ".join([f"{request.account_id} writes", *texts])


def _contact(contact: Contact) -> str:
    marks = [
        "blocked" if contact.is_blocked else "",
        "compared" if contact.verified_at is not None else "",
        "two device lists: nothing is sent" if contact.is_forked else "",
    ]
    return "  ".join([contact.account_id, contact.name or "-", ", ".join(filter(None, marks))]).rstrip()
