"""Django's session interface over our table: what `request.session` is. The verbs are in `identity.sessions`."""

import json
import uuid
import warnings
from typing import Any, Self

from asgiref.sync import sync_to_async
from django.contrib.auth import SESSION_KEY
from django.contrib.sessions.backends.base import SessionBase, UpdateError

from identity import crypto, pruning, sessions
from identity.models import Session, User
from tenants import policy


class AnonymousWrite(UserWarning):
    """Somebody wrote to `request.session` of a visitor who has not signed in. Nothing is kept; in tests it is an error."""


class SessionStore(SessionBase):
    """A live row and the key that opened it, or nothing.

    Unlike Django's stores it never creates a row for a visitor, never re-creates one that ended, and takes `flush` (sign-out)
    as the end of the whole tree.
    """

    row: Session | None = None
    in_grace = False  # opened with the key from before a step-up: sends no cookie, has no fresh proof
    gone = False  # signed out in this response: the cookie is to be deleted

    def __init__(self, session_key: str | None = None) -> None:
        super().__init__(session_key)
        self._saved: str | None = None

    @classmethod
    def of(cls, row: Session, key: str, *, in_grace: bool = False) -> Self:
        """The store of a row that `live` returned."""
        store = cls(key)
        store.row, store.in_grace = row, in_grace
        row.in_grace = in_grace
        return store

    @classmethod
    def born(cls, row: Session, key: str) -> Self:
        """The store of a row just inserted; its cookie goes out with this response."""
        store = cls.of(row, key)
        store._session_cache = {}
        store._saved = store._dump()
        store.modified = True
        return store

    # What Django's middleware and auth functions call -----------------------------------------------------------

    def is_empty(self) -> bool:
        """Never true: Django would delete the cookie of every key that it does not know. Only an end deletes ours."""
        return False

    def load(self) -> dict[str, Any]:
        if self.row is None:
            rows = Session.objects.filter(key_digest=crypto.digest(self.session_key or ""), ended_at=None).select_related("tenant")
            found = rows.first()
            alive = sessions.live([self.session_key or ""], found.tenant) if found else []
            if not alive:
                self._session_key = None
                return {}
            self.row = alive[0]
        data = self._decrypt(self.row)
        self._saved = json.dumps(data, sort_keys=True)
        return data

    def save(self, must_create: bool = False) -> None:
        """Write the data if it changed. UpdateError if the session ended meanwhile; an anonymous write is dropped."""
        if self.row is None:
            self._sign_in_by_login()
            return
        if not hasattr(self, "_session_cache") or self._dump() == self._saved:
            return
        text = crypto.encrypt(self._dump(), place(self.row.pk))
        if not Session.objects.filter(pk=self.row.pk, ended_at=None).update(session_data=text):
            raise UpdateError
        self._saved = self._dump()

    def create(self) -> None:
        """Nothing: a row is made by a sign-in only."""

    def cycle_key(self) -> None:
        if self.row is not None:
            self.rotate(grace=False)

    def flush(self) -> None:
        """Sign-out: the whole tree ends."""
        if self.row is not None:
            tree = Session.objects.filter(pk=self.row.parent_id or self.row.pk)
            sessions.end(tree, by=self.row.user, reason=sessions.Reason.SIGNED_OUT)
        self.forget()

    def delete(self, session_key: str | None = None) -> None:
        key = session_key or self.session_key
        if key:
            rows = Session.objects.filter(key_digest=crypto.digest(key))
            sessions.end(rows, by=None, reason=sessions.Reason.SIGNED_OUT)

    def exists(self, session_key: str) -> bool:
        return Session.objects.filter(key_digest=crypto.digest(session_key), ended_at=None).exists()

    @classmethod
    def clear_expired(cls) -> None:
        pruning.prune()

    def get_expire_at_browser_close(self) -> bool:
        return self.row is None or not self.row.persistent

    def get_expiry_age(self, **kwargs: Any) -> int:
        return int((policy.REMEMBERED_IDLE if self.row and self.row.persistent else policy.PORTAL_IDLE).total_seconds())

    async def aload(self) -> dict[str, Any]:
        return await sync_to_async(self.load)()

    async def asave(self, must_create: bool = False) -> None:
        await sync_to_async(self.save)(must_create)

    async def acreate(self) -> None:
        self.create()

    async def acycle_key(self) -> None:
        await sync_to_async(self.cycle_key)()

    async def aflush(self) -> None:
        await sync_to_async(self.flush)()

    async def adelete(self, session_key: str | None = None) -> None:
        await sync_to_async(self.delete)(session_key)

    async def aexists(self, session_key: str) -> bool:
        return await sync_to_async(self.exists)(session_key)

    # What our views call ----------------------------------------------------------------------------------------

    def rotate(self, *, grace: bool) -> None:
        """A new key for this session; if another tab's step-up was first, that tab's response carries the cookie."""
        assert self.row is not None
        assert self.session_key is not None
        new = sessions.rotate(self.row, self.session_key, grace=grace)
        if new:
            self._session_key, self.in_grace = new, False
            self.modified = True
        elif not Session.objects.filter(pk=self.row.pk, ended_at=None).exists():
            raise UpdateError
        else:
            self.in_grace = True

    def adopt(self, row: Session, key: str) -> None:
        """Become the store of a session that was just opened."""
        self.row, self._session_key = row, key
        self._saved = self._dump()
        self.modified, self.gone, self.in_grace = True, False, False

    def forget(self) -> None:
        """The session is over: nothing is left of it here, and its cookie goes."""
        self.row, self._session_key = None, None
        self._session_cache: dict[str, Any] = {}
        self.modified, self.gone, self.in_grace = False, True, False

    def sealed_data(self, pk: uuid.UUID) -> str:
        """The data as it is stored in the row with this id."""
        return crypto.encrypt(self._dump(), place(pk))

    def _sign_in_by_login(self) -> None:
        """`login()` of some other code: a portal session with the defaults. Anything else is an anonymous write."""
        user = User.objects.filter(pk=self.get(SESSION_KEY) or 0, is_active=True).first()
        if user is None and not self._session_cache:
            return
        if user is None:
            warnings.warn(AnonymousWrite("a visitor without a session"), stacklevel=3)
            self._session_cache, self.modified = {}, False
            return
        pk = uuid.uuid4()
        row, key = sessions.sign_in(user, request=None, methods=[], remember=False, session_data=self.sealed_data(pk), pk=pk)
        self.adopt(row, key)

    def _dump(self) -> str:
        return json.dumps(getattr(self, "_session_cache", {}), sort_keys=True)

    @staticmethod
    def _decrypt(row: Session) -> dict[str, Any]:
        if not row.session_data:
            return {}
        data: dict[str, Any] = json.loads(crypto.decrypt(row.session_data, place(row.pk)))
        return data


def place(pk: uuid.UUID) -> str:
    return f"session:{pk}"
