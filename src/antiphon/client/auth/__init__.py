"""Who signs private and presence channels for a client, and says who its user is."""

from .authorizer import (
    Authentication,
    Authorization,
    Authorizer,
    AuthorizerByChannel,
    UserAuthenticator,
)
from .credentials import HeadersSource, Refresh, TokenSource
from .http import HttpAuthorizer
from .secret import SecretAuthorizer

__all__ = [
    "Authentication",
    "Authorization",
    "Authorizer",
    "AuthorizerByChannel",
    "HeadersSource",
    "HttpAuthorizer",
    "Refresh",
    "SecretAuthorizer",
    "TokenSource",
    "UserAuthenticator",
]
