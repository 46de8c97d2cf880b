"""An end to the use of artifacts, as when a process ends."""

from resources.store.locks import LEASES


def let_go():
    """This process no longer uses anything."""
    while LEASES:
        LEASES.popitem()[1].close()
