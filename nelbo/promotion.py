"""A version that becomes the live one: checked first, as whoever serves it would."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from nelbo.bundle import read_bundle
from nelbo.changes import changes, refuse_changes
from nelbo.errors import BundleError, SchemaError, StoreError
from nelbo.folder import opened
from nelbo.probe import Probe
from nelbo.schema import Schema, parse_schema
from nelbo.scoring import Scorer
from nelbo.store import LIVE, PREVIOUS, Store

if TYPE_CHECKING:
    from nelbo.trust import Trust

_MOST_BYTES = 16 * 2**20  # of a schema, as of one in a bundle that is read


@dataclass(frozen=True)
class Promotion:
    """What became of a wish to promote.

    Attributes:
        name: of the model.
        version: that is live now.
        previous: that was before, and can be gone back to; None where there was none.
        changed: whether another one was live before.
        removed: old versions that are gone.
    """

    name: str
    version: str
    previous: str | None
    changed: bool
    removed: tuple[str, ...] = ()


def promote(
    store: Store,
    name: str,
    version: str,
    *,
    force: bool = False,
    keep: int | None = None,
    trust: "Trust | None" = None,
) -> Promotion:
    """Makes a version the live one, once it has been read, verified, probed and its golden records replayed.

    Args:
        store: of the model.
        name: of the model.
        version: or an alias of it: `previous` goes back.
        force: also where it reads other records than the live one.
        keep: how many of the newest versions to leave; None for all.
        trust: whose bundles may become live; None for anybody's.

    Raises:
        UnknownVersionError: the version is not in the store.
        BundleError: it is damaged, of another model, or scores differently here.
        SchemaChangedError: it reads other records, and is not forced.
        StoreWriteError: the store cannot be changed; the live version is the one that was.
    """
    folder = store.folder(name, version)
    bundle = verified(folder, name, trust, Probe()).bundle
    before = store.aliases(name).get(LIVE)
    if not force:
        refuse_other_schema(store, name, folder.name, bundle.schema)
    store.promote(name, bundle.version)
    removed = tuple(store.prune(name, keep)) if keep is not None else ()
    return Promotion(name, bundle.version, store.aliases(name).get(PREVIOUS), before != bundle.version, removed)


def refuse_other_schema(store: Store, name: str, version: str, schema: Schema) -> None:
    """Refuses a version that reads other records than the live one. One that cannot be read is no reason to.

    Args:
        store: of the model.
        name: of the model.
        version: that is to become live.
        schema: of it.

    Raises:
        SchemaChangedError: naming both versions and every column.
    """
    try:
        live = store.live(name)
        with opened(live) as inside:
            served = parse_schema(inside.read("schema.json", _MOST_BYTES), f"bundle {live}: schema.json")
    except (StoreError, BundleError, SchemaError):
        return
    refuse_changes(f"{name}@{version}", changes(served, schema), f"{name}@{live.name}")


def verified(folder: Path, name: str, trust: "Trust | None", probe: Probe) -> Scorer:
    """A scorer of a version in a store: read and verified, its graph probed, golden records replayed.

    Args:
        folder: of the version, called as it.
        name: what the store calls the model.
        trust: whose bundles it may be; None for anybody's.
        probe: what the graph must pass first.

    Raises:
        BundleError: it is damaged, another model or version than its place says, or scores differently here.
    """
    bundle = read_bundle(folder, trust)
    if (bundle.name, bundle.version) != (name, folder.name):
        raise BundleError(f"bundle '{name}@{folder.name}': the manifest says it is '{bundle.label}'")
    probe.check(bundle)
    scorer = Scorer(bundle)
    scorer.replay()
    return scorer
