"""A version that becomes the live one: checked first, as whoever serves it would."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from nelbo.bundle import Bundle, read_bundle
from nelbo.changes import changes, refuse_changes
from nelbo.errors import BundleError, SchemaError, StoreError
from nelbo.probe import Probe
from nelbo.schema import Schema, read_schema
from nelbo.scoring import Scorer
from nelbo.store import LIVE, PREVIOUS, Store

if TYPE_CHECKING:
    from nelbo.trust import Trust


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
    bundle = _verified(store, name, folder.name, trust)
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
        served = read_schema(live / "schema.json")
    except (StoreError, SchemaError):
        return
    refuse_changes(f"{name}@{version}", changes(served, schema), f"{name}@{live.name}")


def _verified(store: Store, name: str, version: str, trust: "Trust | None") -> Bundle:
    bundle = read_bundle(store.root / name / version, trust)
    if (bundle.name, bundle.version) != (name, version):
        raise BundleError(f"bundle '{name}@{version}': the manifest says it is '{bundle.label}'")
    Probe().check(bundle)
    Scorer(bundle).replay()
    return bundle
