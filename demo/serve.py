"""A small server for a site of demo.build, on this machine. It isolates the page, without which browsers give no threads.

    python -m demo.serve --site site

Exit codes: 0 ended with Ctrl+C, 2 no site there or no such port.
"""

import sys
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from command_line import parse
from demo.config import ServeConfig
from demo.site import TYPES

HEADERS = {"Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Embedder-Policy": "require-corp"}
"""What any other server has to send for threads from the first visit on; without them the page has one thread at first."""


class Handler(SimpleHTTPRequestHandler):
    """Files, with the headers."""

    extensions_map = {"": "application/octet-stream", **TYPES}  # noqa: RUF012 (the library's own form)
    headers_sent: dict[str, str] = HEADERS

    def end_headers(self) -> None:
        for name, value in {**self.headers_sent, "Cache-Control": "no-cache"}.items():
            self.send_header(name, value)
        super().end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: the browser's own tools show requests."""


class PlainHandler(Handler):
    """As servers are that nobody has told anything."""

    headers_sent: dict[str, str] = {}  # noqa: RUF012


class Server(ThreadingHTTPServer):
    """One that takes it calmly when a browser goes away in the middle of a file."""

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


def server(site: Path, port: int = 0, handler: type[Handler] = Handler) -> Server:
    """Bound, not yet serving. Errors: FileNotFoundError without a site, OSError where the port is taken."""
    if not (site / "site.json").is_file():
        raise FileNotFoundError(
            f"--site {site}: no site.json in it. Build one: python -m demo.build --student EXPORT --output SITE"
        )
    return Server(("127.0.0.1", port), partial(handler, directory=str(site)))


def main(config: ServeConfig) -> int:
    try:
        serving = server(Path(config.site), config.port)
    except FileNotFoundError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except (OSError, OverflowError) as error:
        print(f"error: --port {config.port}: {error}. Give another, or 0 for any", file=sys.stderr)
        return 2
    print(f"http://localhost:{serving.server_address[1]}/ (Ctrl+C ends)", flush=True)
    try:
        serving.serve_forever()
    except KeyboardInterrupt:
        pass
    finally:
        serving.server_close()
    return 0


if __name__ == "__main__":
    sys.exit(main(parse(ServeConfig, sys.argv[1:], __doc__ or "", "python -m demo.serve")))
