"""The routes, one file for each thing they are about."""

from __future__ import annotations

from .accounts import BearerAuthentication, account_routes, log_in
from .channels import authenticate_user, authorize_channel, is_socket_id
from .conversations import conversation_routes

__all__ = [
    "BearerAuthentication",
    "account_routes",
    "authenticate_user",
    "authorize_channel",
    "conversation_routes",
    "is_socket_id",
    "log_in",
]
