"""A bot that answers every message with its own words: python examples/echo.py NAME [SERVER].

Kill it at any moment and start it again: a message that it had not finished with is shown to it once more.
"""

import sys

import trio

import sottovoce


async def main(name: str, server: str) -> None:
    """Register as `name`, say so, and echo for ever."""
    async with sottovoce.open_client(f"{name}.db", server=server) as me:
        await me.register(name)
        print(f"{name} echoes", flush=True)
        async for message in me.messages():
            sent = await message.reply(message.text)
            await sent.wait_sent()


if __name__ == "__main__":
    trio.run(main, sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else "http://127.0.0.1:8480")
