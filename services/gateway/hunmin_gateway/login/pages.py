"""The pages of the built-in login, in Korean and English. They need no script, and allow none."""

from dataclasses import dataclass
from functools import cache
from typing import Any

from hunmin_contracts.errors import Problem
from hunmin_kit.identity.local import Invitation
from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from starlette.responses import HTMLResponse

FORM_PATH, REGISTER_PATH, LOGIN_PATH = "/auth/password", "/auth/register", "/auth/login"
# A secret may be in a page's address: it goes to nobody, and no cache keeps it.
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    ),
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


@dataclass(frozen=True, kw_only=True)
class _Field:
    name: str
    ko: str
    en: str
    type: str
    autocomplete: str
    value: str = ""
    required: bool = True
    readonly: bool = False


def login_form(state: str, *, email: str = "", error: str | None = None, status: int = 200) -> HTMLResponse:
    """Ask for address and password."""
    fields = [
        _Field(name="email", ko="이메일", en="E-mail", type="email", autocomplete="username", value=email),
        _Field(name="password", ko="비밀번호", en="Password", type="password", autocomplete="current-password"),
    ]
    return _page(
        status,
        title_ko="로그인",
        title_en="Log in",
        button_ko="로그인",
        button_en="Log in",
        action=FORM_PATH,
        hidden={"state": state},
        fields=fields,
        error=error,
    )


def registration_form(
    secret: str, invited: Invitation, *, email: str = "", name: str = "", error: str | None = None, status: int = 200
) -> HTMLResponse:
    """Ask a new user for a name and a password, or a known one for another password."""
    is_new = invited.subject is None
    address = _Field(
        name="email",
        ko="이메일",
        en="E-mail",
        type="email",
        autocomplete="username",
        value=invited.email or email,
        readonly=invited.email is not None,
    )
    called = _Field(name="name", ko="이름", en="Name", type="text", autocomplete="name", value=name, required=False)
    password = _Field(
        name="password",
        ko="새 비밀번호 (10자 이상)",
        en="New password (10 characters or more)",
        type="password",
        autocomplete="new-password",
    )
    return _page(
        status,
        title_ko="가입" if is_new else "비밀번호 재설정",
        title_en="Register" if is_new else "Another password",
        button_ko="저장",
        button_en="Save",
        action=REGISTER_PATH,
        hidden={"token": secret},
        fields=[address, called, password] if is_new else [address, password],
        error=error,
    )


def error_page(problem: Problem) -> HTMLResponse:
    """Say what is wrong to who came by a link."""
    return _page(
        problem.status,
        title_ko="로그인할 수 없습니다",
        title_en="Not logged in",
        error=problem.detail,
        text=f"Request {problem.request_id}" if problem.request_id else None,
        again=LOGIN_PATH,
    )


def _page(status: int, **values: Any) -> HTMLResponse:
    nothing: dict[str, Any] = dict.fromkeys(("error", "text", "again", "action", "button_ko", "button_en"))
    content = _template().render({"fields": [], "hidden": {}} | nothing | values)
    return HTMLResponse(content, status_code=status, headers=HEADERS)


@cache
def _template() -> Template:
    environment = Environment(
        loader=PackageLoader("hunmin_gateway.login"), autoescape=True, undefined=StrictUndefined, auto_reload=False
    )
    return environment.get_template("page.html")
