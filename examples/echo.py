"""A bot that answers every message with its own words: python examples/echo.py NAME [SERVER].

Kill it at any moment and start it again: a message that it had not finished with is shown to it once more.
"""

import sys

import trio

import sottovoce


async def main(name: str, server: str) -> None:
    """Register as `name`, say so, and echo for ever."""
    # The store keeps keys, sessions and messages. Without accept_everyone, strangers would wait in me.requests().
    async with sottovoce.open_client(f"{name}.db", server=server, accept_everyone=True) as me:
        await me.register(name)  # does nothing the second time
        print(f"{name} echoes", flush=True)
        async for message in me.messages():
            # The answer is safe in the store when `reply` returns, and goes out by itself, also after a restart. The
            # message counts as handled when the loop asks for the next one.
            try:
                await message.reply(message.text)
            except sottovoce.SottovoceError as error:  # one whom nothing can be sent to must not stop the others' bot
                print(error.diagnostics(), file=sys.stderr)


if __name__ == "__main__":
    trio.run(main, sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else "http://127.0.0.1:8480")
