"""A bot for asyncio programs: write "300 tea" to it, and in 300 seconds it says "tea".

    python examples/remind.py NAME [SERVER]

Each reminder is a task beside the others, while the loop goes on reading. Reminders live in memory: to keep them over a
restart, write them down before the loop asks for the next message.
"""

import asyncio
import sys

import sottovoce.aio
from sottovoce import SottovoceError
from sottovoce.aio import Message

MOST = 1_000  # reminders at once: strangers may write, too


async def answer(message: Message, text: str) -> None:
    """Say it to whoever wrote."""
    try:
        await message.reply(text)
    except SottovoceError as error:  # one whom nothing can be sent to must not stop the others' bot
        print(error.diagnostics(), file=sys.stderr)


async def remind(message: Message, seconds: int, text: str) -> None:
    """Wait, then say it."""
    await asyncio.sleep(seconds)
    await answer(message, text)


async def main(name: str, server: str) -> None:
    """Register as `name`, say so, and keep reminders for ever."""
    async with (
        sottovoce.aio.open_client(f"{name}.db", server=server, accept_everyone=True) as me,
        asyncio.TaskGroup() as reminders,
    ):
        await me.register(name)
        print(f"{name} reminds", flush=True)
        waiting: set[asyncio.Task[None]] = set()
        async for message in me.messages():
            number, _, text = message.text.partition(" ")
            if number.isdecimal() and len(number) <= 6 and len(waiting) < MOST:
                task = reminders.create_task(remind(message, int(number), text))
                waiting.add(task)
                task.add_done_callback(waiting.discard)
            else:
                await answer(message, 'write for example "300 tea"')


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else "http://127.0.0.1:8480"))
