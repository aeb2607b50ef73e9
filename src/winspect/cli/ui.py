"""Open a web page to inspect pictures with.

Open a web page on this machine alone: drop pictures, add good samples, compare zero-shot with few-shot, calibrate a
threshold. `winspect serve` has the same page, and more options.
"""

from __future__ import annotations

import argparse
import socket
import threading
import webbrowser

from winspect.cli.common import Exit
from winspect.cli.options import add_model_options, add_options
from winspect.cli.serve import add_store_options, backend_of, data_folder, need_extra
from winspect.errors import SettingsError
from winspect.service.settings import ServiceSettings
from winspect.system.terminal import say

HOST, FIRST_PORT = "127.0.0.1", 7860


def declare(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--port", type=int, metavar="N", help=f"default: {FIRST_PORT}, or the next that is free")
    parser.add_argument("--no-browser", action="store_true", help="only say where the page is")
    add_store_options(parser.add_argument_group("what is inspected"))
    add_model_options(parser)
    add_options(parser, "--verbose", verbose="also a line per request, on stderr")


def run(args: argparse.Namespace) -> int:
    """Serve the page until it is interrupted; returns the exit code."""
    need_extra("the page")
    from winspect.service.serving import serve

    port = args.port or free_port(FIRST_PORT if args.port is None else 0)
    settings = ServiceSettings(args.data or data_folder(), host=HOST, port=port, refuse_stale=not args.allow_stale)
    backend = backend_of(args, settings)
    unopened = [] if args.no_browser else [f"http://{HOST}:{port}/"]

    def announce(text: str) -> None:
        """The first message is that it listens, and then the page can be opened."""
        say(text)
        if unopened:
            open_in_browser(unopened.pop())

    serve(backend, settings, say=announce, access_log=args.verbose)
    return Exit.DONE


def free_port(first: int = FIRST_PORT, *, ports: int = 100) -> int:
    """Find the first free of so many ports from this one on; from 0, any.

    Raises:
        SettingsError: all of them are taken.
    """
    for port in range(first, first + ports):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
            return probe.getsockname()[1]
    raise SettingsError(f"the ports {first} to {first + ports - 1} are all taken; choose another with --port")


def open_in_browser(url: str) -> None:
    """Open a page, without waiting for the browser; only where there is one with windows."""
    try:
        browser = webbrowser.get()
    except webbrowser.Error:
        return
    if type(browser) is webbrowser.GenericBrowser:  # one in the terminal, which is ours
        return
    threading.Thread(target=browser.open, args=(url,), daemon=True).start()
