"""The licence that a publication names: the job's, else the base model's own."""

from __future__ import annotations

import io
import re
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from artifacts.contract import Plan, PublishParams
from artifacts.manifest import file_source, read_marker
from artifacts.store import ObjectMissingError, Store
from launcher.publishing import base_model
from launcher.publishing.hub import PUBLIC_HUB, Repository, find_token
from launcher.publishing.privacy import is_private
from launcher.publishing.products import main_product
from launcher.spec.job_grammar import LICENSE_PATTERN

#: Front matter of a card: YAML between two lines of dashes, at the top.
_FRONT_MATTER = re.compile(r"\A\s*---[ \t]*\r?\n(.*?)\r?\n---[ \t]*(?:\r?\n|\Z)", re.S)
_CARD_BYTES = 256 * 1024


@dataclass(frozen=True)
class Licence:
    """`metadata`: what the card's front matter says of it, empty where none is known. `note`: where that
    comes from, as a sentence."""

    metadata: dict[str, str] = field(default_factory=dict)
    note: str = ""


def find(plan: Plan, store: Store, params: PublishParams, *, ask_hub: bool) -> Licence:
    """The job's own. Else the base model's card is read, beside its files or, with `ask_hub`, on the hub that
    it came from."""
    if params.license is not None:
        return Licence({"license": params.license}, "As the publisher states.")
    main = main_product(params.products)
    stage, name = base_model.stage_of(plan, main), base_model.hub_name(plan, main)
    metadata, revision = {}, None
    if stage is not None:
        metadata, revision = licence_of(_card_beside(store, stage.output)), stage.params.revision
    if not metadata and ask_hub and name is not None:
        metadata = licence_of(Repository(name, find_token()).card(revision))
    if metadata:
        return Licence(_with_link(metadata, name, revision), "The base model's, as its own card states it.")
    return _unknown()


def _unknown() -> Licence:
    return Licence(
        {},
        "None is stated here, and the base model's card names none that could be read. Its terms still bind "
        "this model: look them up before using or passing it on.",
    )


def licence_of(card: dict[str, Any]) -> dict[str, str]:
    """The licence in a card's metadata, with name and link where it is none of the hub's own."""
    identifier = card.get("license")
    if isinstance(identifier, list) and len(identifier) == 1:
        (identifier,) = identifier
    if not isinstance(identifier, str) or not re.fullmatch(LICENSE_PATTERN, identifier):
        return {}
    found = {"license": identifier}
    for name in ("license_name", "license_link"):
        if isinstance(card.get(name), str):
            found[name] = card[name]
    return found


def _with_link(metadata: dict[str, str], name: str | None, revision: str | None) -> dict[str, str]:
    """With the link to the licence's text as it is from outside the base model's repository; without it where
    that is nowhere to be found."""
    link = metadata.get("license_link")
    if link is None or link.startswith("https://"):
        return metadata
    if name is not None and not is_private(link):
        address = f"{PUBLIC_HUB}/{name}/blob/{revision or 'main'}/{quote(link)}"
        return metadata | {"license_link": address}
    return {field: value for field, value in metadata.items() if field != "license_link"}


def front_matter(text: str) -> dict[str, Any]:
    """The metadata of a card; empty where it has none or it can't be read."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    match = _FRONT_MATTER.match(text)
    try:
        values = YAML(typ="safe").load(io.StringIO(match[1])) if match else None
    except (YAMLError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}


def _card_beside(store: Store, prefix: str) -> dict[str, Any]:
    """The metadata of README.md among the base model's files, where those lie: its manifest may not list
    it."""
    manifest = read_marker(store, prefix)
    if manifest is None:
        return {}
    source, before = file_source(store, prefix, manifest)
    try:
        with source.open_read(f"{before}README.md") as stream:
            return front_matter(stream.read(_CARD_BYTES).decode("utf-8", errors="replace"))
    except ObjectMissingError:
        return {}
