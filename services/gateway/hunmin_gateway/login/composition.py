"""Puts login together: chooses who knows the people, by the settings."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import timedelta

from hunmin_kit.data import Database
from hunmin_kit.events import Events
from hunmin_kit.identity import IdentityProvider
from hunmin_kit.identity.local import LocalProvider
from hunmin_kit.identity.oidc import OidcProvider
from hunmin_kit.run import Platform

from hunmin_gateway.login.browser import Browsers
from hunmin_gateway.login.doors import LoginParts
from hunmin_gateway.login.first_user import FirstUser
from hunmin_gateway.login.noting import OwnChanges
from hunmin_gateway.login.pages import FORM_PATH
from hunmin_gateway.login.seal import Seal
from hunmin_gateway.login.sessions import Sessions
from hunmin_gateway.login.settings import LoginSettings, oidc_settings


@asynccontextmanager
async def login_parts(
    platform: Platform, settings: LoginSettings, database: Database, events: Events, pepper: bytes
) -> AsyncGenerator[LoginParts, None]:
    """Yield the parts; on leaving, wait for what the provider is being asked."""
    oidc = oidc_settings(settings)
    public_url = None if settings.public_url is None else str(settings.public_url)
    provider: IdentityProvider
    if oidc is None:
        provider = LocalProvider(database, form_path=FORM_PATH, on_change=OwnChanges(events))
        platform.on_ready(FirstUser(database, public_url=public_url).text)
    else:
        provider = OidcProvider(oidc)
    idle, lifetime = timedelta(seconds=settings.session_idle_s), timedelta(seconds=settings.session_lifetime_s)
    seal = Seal(pepper)
    sessions = Sessions(database, seal, idle=idle, lifetime=lifetime)
    browsers = Browsers(provider, sessions)
    try:
        yield LoginParts(provider, sessions, browsers, seal, public_url)
    finally:
        await browsers.finish()
        await provider.aclose()
