"""Posts a GraphQL query over HTTP, with a limit on the body and redirects only within the host."""

from __future__ import annotations

import re
import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING

from floe_orchestrator_dagster.urls import WEB, shown, web_url
from floe_orchestrator_dagster.webserver.refusal import RefusalError

if TYPE_CHECKING:
    import httpx

    from floe_orchestrator_dagster.webserver.deadline import Line

MAX_ANSWER_BYTES = 16 * 2**20
MAX_REDIRECTS = 5
PATH = "/graphql"
_HOST = re.compile(r"[\w.:-]+")
_ASKS_FOR_CREDENTIALS = frozenset({401, 403, 407})


def endpoint_of(url: str) -> httpx.URL:
    """Return the URL for queries; credentials in it are sent as basic authentication.

    Raises:
        RefusalError: the URL cannot be that of a webserver.
    """
    import httpx

    try:
        base = httpx.URL(url.strip()) if web_url(url) is not None else None
    except (httpx.InvalidURL, ValueError):
        base = None
    if base is None or base.scheme not in WEB or not _HOST.fullmatch(base.host):
        raise RefusalError("this is not a webserver URL. Write http://host:port or https://host.")
    return base.copy_with(path=base.path.rstrip("/") + PATH, fragment=None)


def trusted(ca_bundle: str | None) -> ssl.SSLContext | bool:
    """Return what verifies certificates: a file of PEM certificates; None means the usual ones.

    Raises:
        RefusalError: the file cannot be used.
    """
    if ca_bundle is None:
        return True
    try:
        return ssl.create_default_context(cafile=ca_bundle)
    except OSError as error:
        raise RefusalError(
            f"ca_bundle {ca_bundle} cannot be used: {error.strerror or error}. Name a file of PEM "
            "certificates in plugins.orchestrator.config."
        ) from None


@dataclass(frozen=True, slots=True)
class Exchange:
    """A conversation with one endpoint over one client."""

    client: httpx.Client
    endpoint: httpx.URL
    line: Line

    def post(self, query: str) -> bytes:
        """Return the body of the answer to a query, at most `MAX_ANSWER_BYTES` long.

        Raises:
            RefusalError: the status is not 200, the server redirects to another host, or the body
                is too long.
            httpx.HTTPError: there is no answer, or none in time.
        """
        import httpx

        endpoint = self.endpoint
        for _ in range(MAX_REDIRECTS + 1):
            with self.client.stream(
                "POST",
                endpoint,
                json={"query": query},
                # A compressed body could have any size after unpacking.
                headers={"Accept": "application/json", "Accept-Encoding": "identity"},
                timeout=self.line.seconds_left,
                extensions={"trace": self.line.trace},
            ) as response:
                if response.is_redirect:
                    endpoint = _redirected(endpoint, response.headers.get("location", ""))
                    continue
                if response.status_code != httpx.codes.OK:
                    raise _refused(response.status_code)
                return self._body(response)
        raise RefusalError(
            f"more than {MAX_REDIRECTS} redirects. Check the URL and any proxy in front of Dagster."
        )

    def _body(self, response: httpx.Response) -> bytes:
        import httpx

        body = bytearray()
        for chunk in response.iter_raw():
            body += chunk
            if len(body) > MAX_ANSWER_BYTES:
                raise RefusalError(
                    f"the answer is longer than {MAX_ANSWER_BYTES // 2**20} MiB, so it is not "
                    "Dagster's. Check the URL."
                )
            if self.line.is_over:
                raise httpx.ReadTimeout("")
        return bytes(body)


def _refused(status: int) -> RefusalError:
    if status in _ASKS_FOR_CREDENTIALS:
        return RefusalError(
            f"status {status}: the server needs credentials. Put them into DAGSTER_URL "
            "(https://user:password@host), or use a URL that does not go through the proxy."
        )
    return RefusalError(
        f"status {status}. Read the log of the webserver and of any proxy in front of it."
    )


def _redirected(endpoint: httpx.URL, location: str) -> httpx.URL:
    """Return the target of a redirect.

    Raises:
        RefusalError: the target is another host, or drops TLS: credentials must not go there.
    """
    to = endpoint.join(location)
    if not _HOST.fullmatch(to.host):
        raise RefusalError(
            "the redirect target is not a URL. Check the URL and any proxy in front of Dagster."
        )
    if to.host != endpoint.host or to.scheme not in {endpoint.scheme, "https"}:
        where = shown(str(to)) or "an invalid URL"
        raise RefusalError(
            f"the redirect to {where} was not followed: it leads to another host or drops TLS. If "
            "that is the webserver, use its URL."
        )
    return to.copy_with(userinfo=endpoint.userinfo)
