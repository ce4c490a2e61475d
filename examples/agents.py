"""Two agents that hand each other tasks until both are content: a critic, and a writer with something to say.

    python examples/agents.py critic
    python examples/agents.py writer critic "hello  world"

Add --server https://chat.example to both for another server than this machine's. The writer hands over a draft to
review, the critic hands it back to revise, with a remark, and the writer's last draft is printed. Both may be killed
and started again (the writer without the draft, which is under way): a task that was not finished comes once more.
"""

import argparse
import json
import sys

import trio

import sottovoce
from sottovoce import Client, Message


def remark(draft: str) -> str | None:
    """What the critic has against a draft. Here a language model may be asked, or a person."""
    if "  " in draft:
        return "one space is enough"
    if not draft[:1].isupper():
        return "begin with a capital"
    if not draft.endswith("."):
        return "end with a full stop"
    return None


def revise(draft: str, about: str) -> str:
    """What the writer makes of a remark."""
    match about:
        case "one space is enough":
            return " ".join(draft.split())
        case "begin with a capital":
            return draft[:1].upper() + draft[1:]
        case _:
            return draft + "."


def read(message: Message) -> object:
    """The task in a message, or None: anybody can write anything, and must not stop an agent by it."""
    try:
        return json.loads(message.text)
    except (ValueError, RecursionError):
        return None


async def review(message: Message, draft: str) -> None:
    """The critic's work: a draft comes in, a task or a release goes out."""
    found = remark(draft)
    answer = {"release": draft} if found is None else {"revise": draft, "remark": found}
    try:
        await message.reply(json.dumps(answer))
    except sottovoce.SottovoceError as error:  # one whom nothing can be sent to must not stop the others' critic
        print(error.diagnostics(), file=sys.stderr)


async def criticise(me: Client) -> None:
    """Review what anybody sends, for ever."""
    print("the critic reads", flush=True)
    async for message in me.messages():
        async with message.processing():  # handled at its end, and only if nothing went wrong
            match read(message):
                case {"review": str(draft)}:
                    await review(message, draft)


async def write(me: Client, critic: str, draft: str) -> None:
    """Send a draft to the critic, and revise it until it is released. Without a draft, go on with the last one."""
    partner = await me.look_up(critic)
    if draft:
        await me.send(critic, json.dumps({"review": draft}))
    async for message in me.messages():
        async with message.processing():
            if message.account_id != partner:  # a name can be claimed by anybody; an account id proves itself
                continue
            match read(message):
                case {"release": str(text)}:
                    print(text, flush=True)
                    return
                case {"revise": str(text), "remark": str(about)}:
                    await message.reply(json.dumps({"review": revise(text, about)}))


async def main(name: str, critic: str | None, draft: str, server: str) -> None:
    """One of the two agents."""
    async with sottovoce.open_client(f"{name}.db", server=server, accept_everyone=True) as me:
        await me.register(name)
        if critic is None:
            await criticise(me)
        else:
            await write(me, critic, draft)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("name")
    parser.add_argument("critic", nargs="?")
    parser.add_argument("draft", nargs="?", default="")
    parser.add_argument("--server", default="http://127.0.0.1:8480")
    asked = parser.parse_args()
    trio.run(main, asked.name, asked.critic, asked.draft, asked.server)
