"""What the commands about other accounts do: requests, contacts, blocking, links, safety numbers."""

from functools import partial
from typing import Final

import trio

from .. import Client, Contact, Request, errors
from .commands import Place, Work, opened, printable

#: Seconds that are waited for what lies at the relay.
PATIENCE: Final = 10.0
#: Messages of a request that are printed.
SHOWN: Final = 20


async def requests(place: Place) -> None:
    """Print what strangers have written. Raises ServerUnreachable after that, if there may be more."""
    async with opened(place) as client:
        away = await _fetch(client)
        waiting = await client.requests()
        for request in waiting:
            print(_request(request, (await client.contact(request.account_id)).name, place.command))
    if away is not None:
        raise away
    if not waiting:
        print("nobody waits to be accepted")


async def answer(place: Place, who: str, answer: str) -> None:
    """Accept, decline, block or unblock an account. One that is not known may have written: that is fetched first."""
    async with opened(place) as client:
        account_id = await client.look_up(who)
        acts = {
            "accept": client.accept,
            "decline": client.decline,
            "block": client.block,
            "unblock": client.unblock,
        }
        try:
            await acts[answer](account_id)
        except errors.UnknownRecipient:
            await _answer_fetched(client, partial(acts[answer], account_id), who)
    if answer == "accept":
        print(f"accepted; to read what they write: {place.command} listen")


async def _answer_fetched(client: Client, act: Work, who: str) -> None:
    away = await _fetch(client)
    try:
        await act()
    except errors.UnknownRecipient:
        nothing = errors.UnknownRecipient(
            f"{who} has written nothing", hint="whoever you write to is a contact at once"
        )
        raise away or nothing from None


async def _fetch(client: Client) -> errors.ServerUnreachable | None:
    """Have all that lies at the relay here; or why it is not."""
    with trio.move_on_after(PATIENCE):
        await client.wait_caught_up()
        return None
    reason = client.trouble or "the server does not answer"
    return errors.ServerUnreachable(f"what waits at the server is not fetched ({reason})")


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


def _request(request: Request, name: str | None, command: str) -> str:
    """What somebody has written, and what to type next. Only lines of ours begin without a space."""
    texts = [printable(message.text).replace("\n", "\n    ") for message in request.messages[:SHOWN]]
    more = len(request.messages) + request.dropped - len(texts)
    if more:
        texts.append(f"… and {more} more, {request.dropped} of which were too many to keep")
    who = f"{name}, {request.account_id}," if name else request.account_id
    answer = f"answer with: {command} accept {name or request.account_id} (or decline, or block; by name, too)"
    return "\n  ".join([f"{who} writes", *texts]) + f"\n{answer}"


def _contact(contact: Contact) -> str:
    marks = [
        "blocked" if contact.is_blocked else "",
        "compared" if contact.verified_at is not None else "",
        "two device lists: nothing is sent" if contact.is_forked else "",
    ]
    return "  ".join([contact.account_id, contact.name or "-", ", ".join(filter(None, marks))]).rstrip()
