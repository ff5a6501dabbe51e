"""The page at /docs, and what a browser may do on it."""

import base64
import hashlib
import re

from fastapi.openapi.docs import get_swagger_ui_html
from starlette.responses import HTMLResponse

_ASSETS = "https://cdn.jsdelivr.net/npm/swagger-ui-dist@5/"
_ICON = "data:,"  # none: a page of ours asks no more strangers than it must


def documentation_page(document: str, title: str) -> HTMLResponse:
    """The page, with a policy: its own script and two files of a public network may be used there, and nothing else.

    Args:
        document: path of the OpenAPI document.
        title: of the page.
    """
    page = get_swagger_ui_html(
        openapi_url=document,
        title=title,
        swagger_js_url=f"{_ASSETS}swagger-ui-bundle.js",
        swagger_css_url=f"{_ASSETS}swagger-ui.css",
        swagger_favicon_url=_ICON,
    )
    (script,) = re.findall(rb"<script>(.*?)</script>", bytes(page.body), re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script).digest()).decode()
    page.headers["referrer-policy"] = "no-referrer"
    page.headers["content-security-policy"] = "; ".join(
        [
            "default-src 'none'",
            f"script-src {_ASSETS}swagger-ui-bundle.js 'sha256-{digest}'",
            f"style-src {_ASSETS}swagger-ui.css 'unsafe-inline'",  # it writes styles into its elements
            "img-src data:",
            "connect-src 'self'",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        ]
    )
    return page
