"""Who may use the server: tokens, the users they stand for, and what those may do."""

from dataclasses import dataclass
from typing import Literal

from resources.hub_server.store import KINDS, is_name


@dataclass(frozen=True)
class Account:
    """A user; a token with role `read` changes nothing."""

    name: str
    role: Literal["read", "write"] = "write"
    organizations: tuple[str, ...] = ()

    def is_member(self, repo_id: str) -> bool:
        """Whether the repo lies in the user's own namespace or in one of the user's organizations."""
        return repo_id.split("/")[0] in (self.name, *self.organizations)

    def may_write(self, repo_id: str) -> bool:
        return self.role == "write" and self.is_member(repo_id)


def parse_account(text: str) -> tuple[str, Account]:
    """The token and the account of `TOKEN=user[:read][,organization…]`.

    Raises:
        ValueError: the text has another form; the message leaves the token out.
    """
    token, equals, names = text.partition("=")
    user, *organizations = names.split(",")
    name, colon, role = user.partition(":")
    if not (token and equals):
        raise ValueError("a token is given as TOKEN=user[:read][,organization…]")
    for namespace in (name, *organizations):
        if not is_name(namespace) or namespace in (*KINDS, "api"):
            raise ValueError(f"{namespace!r} cannot be the name of a user or an organization")
    if colon and role not in ("read", "write"):
        raise ValueError(f"the role of {name} is {role!r}; it can be read or write")
    return token, Account(name, "read" if role == "read" else "write", tuple(organizations))
