"""Where the Redis is: by itself, behind sentinels, or as a Redis Cluster, with TLS and users.

Whichever it is, what comes out is a connection to the one server that holds an application's keys.
Who holds them is asked again with each new connection, so a replica that took over is found.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any, Final, NoReturn
from urllib.parse import parse_qsl, unquote, urlsplit

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.crc import key_slot
from redis.exceptions import AuthenticationError, RedisError, ResponseError
from redis.exceptions import ConnectionError as NoConnection

from antiphon.errors import SettingsError

__all__ = ["Address"]

TIMEOUT: Final = 5.0
_PORT: Final = 6379
_SENTINEL_PORT: Final = 26379
_FORMS: Final = {
    scheme: f"{scheme}://{rest}"
    for scheme, rest in {
        "redis": "HOST:PORT/DB",
        "rediss": "HOST:PORT/DB",
        "unix": "/PATH",
        "redis+sentinel": "HOST:PORT,HOST:PORT/NAME/DB",
        "rediss+sentinel": "HOST:PORT,HOST:PORT/NAME/DB",
        "redis+cluster": "HOST:PORT,HOST:PORT",
        "rediss+cluster": "HOST:PORT,HOST:PORT",
    }.items()
}
_TLS: Final = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_check_hostname")
_SENTINEL: Final = ("sentinel_username", "sentinel_password")


class Address:
    """What one string says of a Redis.

    Args:
        url: `redis://user:password@host:port/db`; `rediss` for TLS, with `?ssl_ca_certs=FILE` where
            the system does not know who signed; `unix:///path`;
            `redis+sentinel://host:port,host:port/name/db`; `redis+cluster://host:port,host:port`.

    Attributes:
        is_cluster: Whether applications may be on different servers.

    Raises:
        SettingsError: It is nothing of the kind.
    """

    def __init__(self, url: str) -> None:
        scheme, _, rest = url.partition("://")
        if scheme not in _FORMS or not rest:
            forms = ", ".join(_FORMS.values())
            raise SettingsError(f"The Redis must be given as one of {forms}.")
        rest, _, query = rest.partition("?")
        authority, _, path = rest.partition("/")
        user, _, hosts = authority.rpartition("@")
        self._scheme = scheme
        self._kind = scheme.partition("+")[2]
        self.is_cluster = self._kind == "cluster"
        self._options = self._credentials(*(unquote(part) for part in user.partition(":")[::2]))
        self._options_of_sentinel: dict[str, Any] = {}
        self._take_query(query)
        self._path = self._name = ""
        self._hosts: list[tuple[str, int]] = []
        self._seen: list[tuple[str, int]] = []  # a cluster's servers, when it was asked last
        if scheme == "unix":
            self._path = "/" + unquote(path)
            return
        port = _SENTINEL_PORT if self._kind == "sentinel" else _PORT
        self._hosts = [self._host(each, port) for each in hosts.split(",")]
        if self._kind == "sentinel":
            self._name, _, path = unquote(path).partition("/")
            if not self._name:
                self._refuse("the name of the master is missing")
        elif len(self._hosts) > 1 and not self.is_cluster:
            self._refuse("it can be only one server")
        if path and (not path.isdecimal() or self.is_cluster):
            self._refuse("a cluster has no databases" if self.is_cluster else "DB is a number")
        self._options["db"] = int(path or 0)

    def __str__(self) -> str:
        hosts = ", ".join(f"{host}:{port}" for host, port in self._hosts)
        if self._kind == "sentinel":
            return f"The Redis {self._name!r} of the sentinels at {hosts}"
        return f"The Redis {'Cluster ' if self.is_cluster else ''}at {hosts or self._path}"

    @staticmethod
    def _credentials(user: str, password: str) -> dict[str, Any]:
        return {"username": user or None, "password": password or None}

    def _take_query(self, query: str) -> None:
        words = dict(parse_qsl(query, keep_blank_values=True))
        is_tls = self._scheme.startswith("rediss")
        known = (*(_TLS if is_tls else ()), *(_SENTINEL if self._kind == "sentinel" else ()))
        for name in words:
            if name not in known:
                self._refuse(f"the option {name!r} is not known here")
        tls: dict[str, Any] = {name: words[name] for name in _TLS if name in words}
        if is_tls:
            asks = str(tls.get("ssl_check_hostname", "true")).lower()
            tls = {**tls, "ssl": True, "ssl_check_hostname": asks not in ("false", "no", "0")}
        self._options |= tls
        self._options_of_sentinel = tls | self._credentials(
            *(words.get(name, "") for name in _SENTINEL)
        )

    def _host(self, text: str, port: int) -> tuple[str, int]:
        try:
            parts = urlsplit(f"//{text}")
            host, given = parts.hostname or "", parts.port
        except ValueError:
            host, given = "", None
        if not host:
            self._refuse("a host or its port is missing or no such thing")
        return host, port if given is None else given

    def _refuse(self, reason: str) -> NoReturn:
        raise SettingsError(f"The Redis is to be given as {_FORMS[self._scheme]}: {reason}.")

    # Connecting

    async def connect(self, key: str) -> Redis:
        """A connection to the server that holds a key, and may change it.

        Raises:
            RedisError: There is none now, or it is not what the address says.
            OSError: The same.
        """
        if self._path:
            redis = self._client(self._options, unix_socket_path=self._path)
        elif self._kind == "sentinel":
            redis = self._client(self._options, *await self._ask_sentinels())
        elif self.is_cluster:
            redis = self._client(self._options, *await self._ask_cluster(key))
        else:
            redis = self._client(self._options, *self._hosts[0])
        try:
            await self._check(redis)
        except BaseException:
            await redis.aclose()
            raise
        return redis

    async def _check(self, redis: Redis) -> None:
        says = await _hello(redis)
        mode, wanted = says.get("mode"), "cluster" if self.is_cluster else "standalone"
        if mode == wanted:
            if says.get("role") != "master":
                raise NoConnection("it is a replica, which cannot be written to")
        elif mode == "cluster":
            raise NoConnection("it is part of a Redis Cluster: write redis+cluster://")
        elif mode == "sentinel":
            raise NoConnection("it is a sentinel: write redis+sentinel://HOST:PORT/NAME")
        else:
            raise NoConnection("it is no Redis Cluster: write redis://")

    async def _ask_sentinels(self) -> tuple[str, int]:
        failure: Exception | None = None
        for host, port in self._hosts:
            redis = self._client(self._options_of_sentinel, host, port)
            try:
                if (await _hello(redis)).get("mode") != "sentinel":
                    raise NoConnection(f"{host}:{port} is no sentinel: write redis://")
                found = await _ask(redis, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._name)
            except (RedisError, OSError) as exc:
                failure = exc
                continue
            finally:
                await redis.aclose()
            if found:
                return found[0].decode(), int(found[1])
            failure = failure or NoConnection("they know no master of this name")
        assert failure is not None
        raise failure

    async def _ask_cluster(self, key: str) -> tuple[str, int]:
        slot = key_slot(key.encode())
        failure: Exception | None = None
        # Not always the same first: one that was cut off from the others may know old things.
        servers = list(dict.fromkeys(self._hosts + self._seen))
        for host, port in random.sample(servers, len(servers)):
            redis = self._client(self._options, host, port)
            try:
                await self._check_is_cluster(redis)
                ranges = await _ask(redis, "CLUSTER", "SLOTS")
            except (RedisError, OSError) as exc:
                failure = exc
                continue
            finally:
                await redis.aclose()
            self._seen = [(_name(n[0], host), int(n[1])) for _, _, *nodes in ranges for n in nodes]
            for first, last, master, *_ in ranges:
                if first <= slot <= last:
                    return _name(master[0], host), int(master[1])
            failure = NoConnection("no server of it has this application's slot")
        assert failure is not None
        raise failure

    async def _check_is_cluster(self, redis: Redis) -> None:
        if (await _hello(redis)).get("mode") != "cluster":
            raise NoConnection("it is no Redis Cluster: write redis://")

    @staticmethod
    def _client(options: Mapping[str, Any], host: str = "", port: int = 0, **more: Any) -> Redis:
        return Redis(
            host=host,
            port=port,
            socket_timeout=TIMEOUT,
            socket_connect_timeout=TIMEOUT,
            protocol=2,
            retry=Retry(NoBackoff(), 0),  # what was sent once must not be done twice
            **options,
            **more,
        )


async def _hello(redis: Redis) -> dict[str, str]:
    """What a server says of itself."""
    try:
        flat = await _ask(redis, "HELLO")
    except AuthenticationError as exc:
        if str(exc).startswith("HELLO must"):
            raise AuthenticationError("it asks for a password") from exc
        raise
    except ResponseError as exc:
        if str(exc).startswith("unknown command"):
            raise NoConnection("it is older than Redis 7") from exc
        raise
    pairs = zip(flat[::2], flat[1::2], strict=True)
    found = {k.decode(): v.decode() for k, v in pairs if isinstance(v, bytes)}
    if int(found.get("version", "0").partition(".")[0]) < 7:
        raise NoConnection("it is older than Redis 7")
    return found


async def _ask(redis: Redis, *command: Any) -> Any:
    return await redis.execute_command(*command)  # type: ignore[no-untyped-call]


def _name(host: bytes | None, asked: str) -> str:
    """What a cluster calls one of its servers; nothing stands for the one that was asked."""
    return host.decode() if host and host != b"?" else asked
