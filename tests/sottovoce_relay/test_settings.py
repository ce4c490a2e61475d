"""What can be chosen about a relay, and what it then grants."""

from typing import Any

import pytest
from pydantic import ValidationError

from sottovoce_relay.app import terms_of
from sottovoce_relay.envelopes import Quotas
from sottovoce_relay.settings import RelaySettings
from sottovoce_wire import limits
from sottovoce_wire.frames import KeyClass, Ttl

CODE = "sixteen letters."


def test_anybody_may_make_queues_unless_it_is_said_otherwise() -> None:
    assert RelaySettings().registration == "open"


@pytest.mark.parametrize("code", [CODE, "é" * limits.MAX_REGISTRATION_CODE])
def test_a_code_goes_with_invite(code: str) -> None:
    given: Any = {"registration": "invite", "registration_code": code}
    settings = RelaySettings(**given)
    assert settings.registration_code is not None
    assert settings.registration_code.get_secret_value() == code
    assert code not in repr(settings)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"registration": "invite"}, "needs a registration_code"),
        ({"registration_code": CODE}, "keeps nobody out"),
        ({"registration": "invite", "registration_code": CODE[1:]}, "16 to 128 printable characters"),
        ({"registration": "invite", "registration_code": "x" * 129}, "16 to 128 printable characters"),
        ({"registration": "invite", "registration_code": CODE + "\n"}, "16 to 128 printable characters"),
        ({"registration": "perhaps"}, "'open', 'invite' or 'closed'"),
    ],
)
def test_a_door_that_is_not_what_it_seems_is_refused(given: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words) as caught:
        RelaySettings(**given)
    assert CODE[1:-1] not in str(caught.value)


@pytest.mark.parametrize("name", sorted(RelaySettings.model_fields))
def test_every_setting_says_what_it_means(name: str) -> None:
    assert RelaySettings.model_fields[name].description


def test_a_relay_that_nobody_configured_grants_what_the_protocol_does() -> None:
    settings = RelaySettings()
    assert settings.quotas == Quotas()
    assert settings.lifetimes == {ttl: ttl.seconds for ttl in Ttl}


def test_an_operator_may_grant_less() -> None:
    settings = RelaySettings(max_envelope=1024, queue_envelopes=7, queue_bytes=limits.MAX_ENVELOPE)
    assert settings.quotas == Quotas(max_envelope=1024, envelopes=7, size=limits.MAX_ENVELOPE)


@pytest.mark.parametrize(
    "given",
    [
        {"max_envelope": limits.MAX_ENVELOPE + 1},
        {"queue_envelopes": limits.QUEUE_ENVELOPES + 1},
        {"queue_bytes": limits.QUEUE_BYTES + 1},
        {"queue_bytes": limits.MAX_ENVELOPE - 1},
        {"max_lifetime": 30 * limits.DAY + 1},
        {"max_lifetime": 0},
        {"idle_queue_days": 30},
        {"hold_ms": 1001},
        {"hold_ms": -1},
        {"stranger_rate": 0},
    ],
)
def test_nobody_may_grant_more_than_the_protocol_or_nothing_at_all(given: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        RelaySettings(**given)


def test_no_class_of_envelopes_lives_longer_than_the_operator_grants() -> None:
    assert RelaySettings(max_lifetime=2 * limits.HOUR).lifetimes == {
        Ttl.NOW: 0,
        Ttl.HOUR: limits.HOUR,
        **dict.fromkeys((Ttl.SIX_HOURS, Ttl.DAY, Ttl.WEEK, Ttl.MONTH), 2 * limits.HOUR),
    }


def test_a_queue_outlives_every_envelope_in_it() -> None:
    """Otherwise an owner on a long journey would lose what has not expired."""
    field = RelaySettings.model_fields["idle_queue_days"]
    assert any(getattr(rule, "ge", 0) * limits.DAY > max(ttl.seconds for ttl in Ttl) for rule in field.metadata)


def test_contacts_and_groups_share_a_rate_and_each_class_has_its_own_burst() -> None:
    rates = terms_of(RelaySettings(stranger_rate=1, invite_rate=1, contact_rate=1)).rates
    assert rates[KeyClass.CONTACT] is rates[KeyClass.GROUP]
    bursts = {
        KeyClass.STRANGER: limits.STRANGER_ENVELOPES,
        KeyClass.INVITE: limits.INVITE_ENVELOPES,
        KeyClass.CONTACT: limits.QUEUE_ENVELOPES,
    }
    for kind, burst in bursts.items():
        assert rates[kind].take("queue", burst) == 0
        assert rates[kind].take("queue") > 0


def test_terms_are_what_was_configured() -> None:
    settings = RelaySettings(hold_ms=7, queue_envelopes=3, max_lifetime=60)
    terms = terms_of(settings)
    assert (terms.hold_seconds, terms.quotas, terms.lifetimes) == (0.007, settings.quotas, settings.lifetimes)
