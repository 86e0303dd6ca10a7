"""How the backend refuses: `{"message": "..."}` with the right status, as Laravel does.

Nothing that a caller sends and nothing of the program's inside is repeated there.
"""

from __future__ import annotations

import logging
from http import HTTPStatus
from typing import Any, Final

import msgspec
from litestar import MediaType, Request, Response
from litestar.exceptions import HTTPException, ValidationException
from litestar.openapi import ResponseSpec

__all__ = ["EXCEPTION_HANDLERS", "Refusal", "refusals"]

log = logging.getLogger("antiphon.backend")

_HUNG_UP: Final = "client disconnected prematurely"
"""Litestar's words, under 500; it is no fault of anybody's here."""


class Refusal(msgspec.Struct, frozen=True):
    """The body of every answer that is no success."""

    message: str


def refusals(*statuses: int) -> dict[int, ResponseSpec]:
    """What the OpenAPI document says about a route that may refuse so."""
    return {
        status: ResponseSpec(
            Refusal, generate_examples=False, description=HTTPStatus(status).phrase
        )
        for status in statuses
    }


def _refused(request: Request[Any, Any, Any], exc: HTTPException) -> Response[Refusal]:
    if exc.detail == _HUNG_UP:
        return _answer(400, "The request broke off.")  # nobody reads it
    if exc.status_code >= 500:
        return _failed(request, exc)
    return _answer(exc.status_code, exc.detail, exc.headers)


def _invalid(request: Request[Any, Any, Any], exc: ValidationException) -> Response[Refusal]:
    first: Any = exc.extra[0] if isinstance(exc.extra, list) and exc.extra else {}
    field, text = first.get("key", ""), first.get("message", exc.detail)
    return _answer(422, text if field in ("", "data") else f"{field}: {text}")


def _no_text(request: Request[Any, Any, Any], exc: UnicodeDecodeError) -> Response[Refusal]:
    # Litestar lets this one of msgspec's through.
    return _answer(400, "The body is no UTF-8.")


def _failed(request: Request[Any, Any, Any], exc: Exception) -> Response[Refusal]:
    log.error("%s %r failed.", request.method, request.url.path, exc_info=exc)
    return _answer(500, "Server Error")


def _answer(status: int, text: str, headers: dict[str, str] | None = None) -> Response[Refusal]:
    return Response(Refusal(text), status_code=status, headers=headers, media_type=MediaType.JSON)


EXCEPTION_HANDLERS: Any = {
    HTTPException: _refused,
    ValidationException: _invalid,
    UnicodeDecodeError: _no_text,
    Exception: _failed,
}
