"""How long clients wait between attempts, on a clock that does not wait."""

import trio
from trio.testing import MockClock

from sottovoce.backoff import Backoff

LONGEST_WAITS = [1, 2, 4, 8, 16, 30, 30]


async def waited(backoff: Backoff) -> float:
    before = trio.current_time()
    await backoff.wait()
    return trio.current_time() - before


async def test_waits_double_up_to_thirty_seconds_and_are_shortened_by_half_at_most(autojump_clock: MockClock) -> None:
    backoff = Backoff()
    for longest in LONGEST_WAITS:
        assert longest / 2 <= await waited(backoff) <= longest
        assert backoff.is_failing


async def test_two_clients_do_not_come_back_together(autojump_clock: MockClock) -> None:
    assert await waited(Backoff()) != await waited(Backoff())


async def test_what_held_for_longer_than_the_last_wait_starts_over(autojump_clock: MockClock) -> None:
    backoff = Backoff()
    for _ in range(5):
        await backoff.wait()
    backoff.succeed()
    assert not backoff.is_failing
    await trio.sleep(16)
    assert await waited(backoff) <= 1


async def test_a_server_that_greets_and_hangs_up_is_not_dialled_more_often_for_it(autojump_clock: MockClock) -> None:
    backoff = Backoff()
    for longest in LONGEST_WAITS:
        assert longest / 2 <= await waited(backoff)
        backoff.succeed()
