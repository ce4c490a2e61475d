"""What a keyserver counts: requests by route and class of status, bundles; and nobody's name or id."""

from __future__ import annotations

import base64
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

from prometheus_client.parser import text_string_to_metric_families

from sottovoce_wire import directory as wire

if TYPE_CHECKING:
    from pathlib import Path

    from tests.sottovoce_keyserver.conftest import Person, ServedKeyserver, StartKeyserver

REQUESTS = "sottovoce_keyserver_requests_total"
BUNDLES = "sottovoce_keyserver_bundles_total"


async def exposition(keyserver: ServedKeyserver) -> str:
    assert keyserver.server.address.metrics is not None
    return (await keyserver.http.get(keyserver.server.address.metrics)).text


def counted(text: str, name: str) -> dict[tuple[str, ...], float]:
    """The samples of one metric by their labels' values."""
    families = text_string_to_metric_families(text)
    samples = (sample for family in families for sample in family.samples)
    return {tuple(sample.labels.values()): sample.value for sample in samples if sample.name == name}


async def test_requests_are_counted_by_route_and_class_of_status(
    start_keyserver: StartKeyserver, alice: Person
) -> None:
    keyserver = await start_keyserver(metrics_port=0)
    await keyserver.register(alice)
    await keyserver.bundles(alice)
    for name in ("bob", "carol", "bo b"):
        await keyserver.post(wire.PATH_FIND_NAME, wire.FindName(name))
    await keyserver.http.get(keyserver.server.url + "/v1/nowhere")
    assert counted(await exposition(keyserver), REQUESTS) == {
        (wire.PATH_REGISTER, "2xx"): 1,
        (wire.PATH_BUNDLES, "2xx"): 1,
        (wire.PATH_FIND_NAME, "4xx"): 3,
    }


async def test_a_request_that_fails_is_counted_too(
    start_keyserver: StartKeyserver, alice: Person, tmp_path: Path
) -> None:
    keyserver = await start_keyserver(metrics_port=0)
    with closing(sqlite3.connect(tmp_path / "keyserver.db")) as database:
        database.execute("DROP TABLE usernames")
    assert (await keyserver.post(wire.PATH_FIND_NAME, wire.FindName("bob"))).status_code == 503
    assert counted(await exposition(keyserver), REQUESTS) == {(wire.PATH_FIND_NAME, "5xx"): 1}


async def test_bundles_are_counted_with_and_without_a_one_time_prekey(
    start_keyserver: StartKeyserver, alice: Person
) -> None:
    keyserver = await start_keyserver(metrics_port=0)
    await keyserver.register(alice)
    for _ in range(5):  # of which three find one
        await keyserver.bundles(alice)
    assert counted(await exposition(keyserver), BUNDLES) == {("with",): 3, ("without",): 2}


async def test_no_metric_names_anybody(start_keyserver: StartKeyserver, alice: Person) -> None:
    keyserver = await start_keyserver(metrics_port=0)
    await keyserver.register(alice, "alice-of-the-wood")
    await keyserver.post(wire.PATH_FIND_NAME, wire.FindName("alice-of-the-wood"))
    await keyserver.bundles(alice)
    text = await exposition(keyserver)
    assert REQUESTS in text
    for spelling in (alice.id.hex(), base64.b64encode(alice.id).decode(), str(alice.id), "alice", "127.0.0.1"):
        assert spelling not in text
