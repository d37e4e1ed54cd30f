"""What a start prints: where the server is, the first key (once), and a command that tries it."""

import json
import shlex

from hunmin_contracts.errors import HunminError
from hunmin_contracts.generation import MODELS
from hunmin_contracts.schema import Empty
from hunmin_contracts.tenancy import Role
from hunmin_kit.data import Database
from hunmin_kit.events import Events
from hunmin_kit.web import Client
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from hunmin_gateway.audit.audit import STARTING, Audit
from hunmin_gateway.keys.ring import DEFAULT_ACCOUNT, KeyRing
from hunmin_gateway.keys.text import visible_prefix

ANOTHER_KEY = "make key, or hunmin keys create NAME"


class Welcome:
    """Makes the first key when the server is ready: a start that fails must not use up the one time it is shown."""

    def __init__(
        self, database: Database, pepper: bytes, events: Events, generation: Client, *, bootstrap_key: str | None
    ) -> None:
        self._database = database
        self._pepper = pepper
        self._events = events
        self._generation = generation
        self._bootstrap_key = bootstrap_key

    async def text(self, url: str) -> str:
        """Return the text for a server at `url`."""
        key, about_keys = await self._keys()
        lines = [
            "",
            f"Hunmin Studio is ready at {url} (reference: {url}/docs)",
            about_keys,
            "Try it:",
            "",
            await self._command(url, key),
            "",
        ]
        return "\n".join(lines)

    async def _keys(self) -> tuple[str, str]:
        """Return how a command names a key, and what there is to say about keys."""
        if self._bootstrap_key is not None:
            shown = visible_prefix(self._bootstrap_key)
            return "$HUNMIN_GATEWAY_BOOTSTRAP_KEY", f"API key: the one in HUNMIN_GATEWAY_BOOTSTRAP_KEY ({shown}…)."
        async with self._database.session() as session:
            # Gateways that start together make one first key.
            await session.execute(text("SELECT pg_advisory_xact_lock(hashtextextended('first_key', 0))"))
            ring = KeyRing(session, pepper=self._pepper)
            known = await ring.list()
            first_key = None if known else await self._make(session, ring)
        if first_key is not None:
            return first_key, f"Your API key, shown this once: {first_key}"
        shown = ", ".join(f"{key.info.prefix}…" for key in known if key.info.revoked_at is None) or "none is valid"
        return "$YOUR_KEY", f"API keys made before: {shown}. To make another: {ANOTHER_KEY}"

    async def _make(self, session: AsyncSession, ring: KeyRing) -> str:
        audit = Audit(session, self._events, STARTING)
        key, _ = await ring.create(DEFAULT_ACCOUNT, "first", role=Role.OWNER, audit=audit)
        return key

    async def _command(self, url: str, key: str) -> str:
        authorization = f'-H "Authorization: Bearer {key}"'
        model = await self._some_model()
        if model is None:
            return f"  curl {url}/v1/models {authorization}"
        body = json.dumps({"model": model, "prompt": "이 영화는", "max_tokens": 32}, ensure_ascii=False)
        content_type = "-H 'Content-Type: application/json'"
        return f"  curl {url}/v1/completions {authorization} {content_type} \\\n    -d {shlex.quote(body)}"

    async def _some_model(self) -> str | None:
        try:
            found = await self._generation.call(MODELS, Empty())
        except HunminError:  # as a process of its own the gateway may be up first
            return None
        return found.models[0].name if found.models else None
