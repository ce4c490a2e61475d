"""The asyncio bot: it answers while reminders wait, and each comes when it is due."""

from pathlib import Path

from sottovoce import sync
from tests.examples.programs import PATIENCE, running
from tests.servers import ServerProcess


def test_a_reminder_that_is_due_does_not_wait_for_one_that_is_not(server: ServerProcess, tmp_path: Path) -> None:
    with (
        sync.open_client(tmp_path / "person.db", server=server.url) as person,
        running("remind.py", "clock", server.url, folder=tmp_path, ready="clock reminds"),
    ):
        person.register("person")
        for text in ("300 much later", "0 tea", "when?"):
            person.send("clock", text)
        messages = person.messages(timeout=PATIENCE)
        assert {next(messages).text for _ in range(2)} == {"tea", 'write for example "300 tea"'}
