"""Runs in an object store: sent up while they are recorded, brought down to be read."""

from dynoscope.remote.catalog import Catalog, runs_below
from dynoscope.remote.places import name_of
from dynoscope.remote.push import push
from dynoscope.remote.replica import Replica
from dynoscope.remote.spool import Place, Remote, checked_out, said
from dynoscope.remote.store import Store, is_uri, joined, shown

__all__ = [
    "Catalog",
    "Place",
    "Remote",
    "Replica",
    "Store",
    "checked_out",
    "is_uri",
    "joined",
    "name_of",
    "push",
    "runs_below",
    "said",
    "shown",
]
