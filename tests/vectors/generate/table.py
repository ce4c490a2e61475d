"""The table of all constructions, one file each. A new construction is a module beside this one and a line here."""

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

from tests.vectors.form import SCHEMA

from .agreement import AGREEMENT
from .attachments import ATTACHMENTS
from .build import Construction, file_text, schema_text
from .directory import DIRECTORY
from .identity import IDENTITY
from .keys import KEYS
from .labels import LABELS
from .padding import PADDING
from .phrase import PHRASE
from .pq import PQ_RATCHET
from .prekeys import PREKEYS
from .ratchet import RATCHET
from .ratchet_keys import RATCHET_KEYS
from .safety import SAFETY
from .sealed import SEALED_FIRST
from .sender_keys import SENDER_KEYS
from .sessions import SESSIONS

CONSTRUCTIONS: Sequence[Construction] = (
    LABELS,
    PADDING,
    KEYS,
    IDENTITY,
    PHRASE,
    PREKEYS,
    AGREEMENT,
    SEALED_FIRST,
    RATCHET_KEYS,
    RATCHET,
    SESSIONS,
    PQ_RATCHET,
    SENDER_KEYS,
    ATTACHMENTS,
    SAFETY,
    DIRECTORY,
)


@cache
def generated() -> Mapping[str, str]:
    """File name to text. Once in a process: it takes some seconds."""
    texts = {f"{construction.name}.json": file_text(construction) for construction in CONSTRUCTIONS}
    return {SCHEMA: schema_text(CONSTRUCTIONS), **texts}


def outdated(folder: Path) -> list[str]:
    """The names of files in `folder` that differ from what is generated, are missing or are too many."""
    wanted = generated()
    there = {path.name: path.read_text("utf-8") for path in folder.glob("*.json")}
    return sorted(name for name in wanted.keys() | there.keys() if wanted.get(name) != there.get(name))
