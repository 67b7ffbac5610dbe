"""Which requests the page's server answers: none that another site's page makes."""

import re

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

LOCAL_NAMES = ("127.0.0.1", "localhost", "[::1]")


class OwnPageOnly:
    """Refuses requests that the pages of other sites make in a browser on this machine.

    Such a page may post to any address. It may also have its own name point to this machine (DNS
    rebinding); the browser then takes it and this server for one site, but sends that name as Host.

    Args:
        app: Answers all other requests.
        host: Address that the server listens on. Only for one of this machine alone the names are
            known that Host may have.
    """

    def __init__(self, app: ASGIApp, host: str) -> None:
        self.app = app
        local = host in LOCAL_NAMES or host.startswith("127.")
        self.names = {*LOCAL_NAMES, host} if local else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or hand it on."""
        if scope["type"] != "lifespan" and self._is_foreign(scope):
            refusal = "Refused: open the page at the address that sdm app printed.\n"
            await PlainTextResponse(refusal, status_code=403)(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    def _is_foreign(self, scope: Scope) -> bool:
        headers = Headers(scope=scope)
        host, origin = headers.get("host", ""), headers.get("origin")
        if self.names is not None and re.sub(r":\d*$", "", host.lower()) not in self.names:
            return True
        posts = scope.get("method") == "POST"
        return posts and origin is not None and origin.partition("://")[2] != host
