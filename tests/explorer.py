"""Model Explorer, as its command line starts it: a page that a server on this machine serves to a browser."""

from __future__ import annotations

import json
import os
import select
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote, unquote

COMMAND = "model-explorer"

PATIENCE = 60.0
"""Seconds to wait for the server at most."""

HOST = "127.0.0.1"

# It asks for newer versions of itself, which is answered by nobody here.
NO_NETWORK = {"HTTPS_PROXY": f"http://{HOST}:9", "NO_PROXY": HOST, "PYTHONUNBUFFERED": "1"}


class ExplorerError(Exception):
    """The server said no, or nothing."""


@contextmanager
def opened_explorer(folder: Path, numbers: Sequence[str]) -> Iterator[str]:
    """The address of the page that shows a folder's graphs with these numbers of them."""
    paths = ",".join(f"{name}.json" for name in numbers)
    options = [f"--node_data_paths={paths}", "--no_open_in_browser", f"--host={HOST}", f"--port={free_port()}"]
    with subprocess.Popen(
        [COMMAND, "graphs.json", *options],
        cwd=folder,
        env=os.environ | NO_NETWORK,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as process:
        try:
            assert process.stdout is not None
            yield address_in(process.stdout.fileno())
        finally:
            process.terminate()


def free_port() -> int:
    with socket.socket() as found:
        found.bind((HOST, 0))
        port: int = found.getsockname()[1]
        return port


def address_in(output: int) -> str:
    """The address that the server prints once it answers."""
    said = b""
    while b"Press Ctrl+C" not in said:
        ready, _, _ = select.select([output], [], [], PATIENCE)
        part = os.read(output, 1 << 16) if ready else b""
        if not part:
            raise ExplorerError(f"{COMMAND} did not start: {said.decode()}")
        said += part
    return next(line for line in said.decode().splitlines() if line.startswith("http://"))


def address_of(address: str, collection: str, graph: str, node: str) -> str:
    """The same page at a node of a graph, as its bookmarks have it."""
    server, _, given = address.partition("?data=")
    pane = {
        "selectedCollectionLabel": collection,
        "selectedGraphId": graph,
        "selectedNodeId": node,
        "deepestExpandedGroupNodeIds": [],
        "widthFraction": 1,
    }
    state = json.loads(unquote(given)) | {"uiState": {"paneStates": [pane]}}
    return f"{server}?data={quote(json.dumps(state))}"
