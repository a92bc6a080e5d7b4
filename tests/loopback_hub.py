"""A model hub on this machine alone: serves one folder, as the real hub's client asks for it."""

from __future__ import annotations

import hashlib
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, ClassVar

from huggingface_hub import constants

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import pytest

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@contextmanager
def serve_folder(
    folder: Path, hub_id: str, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[list[str]]:
    """Have the hub's client find `folder` under a hub id, and keep it in `cache`.

    Gives the names of the files that are downloaded, as they are.
    """
    downloaded: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        folder_files: ClassVar = sorted(folder.iterdir())

        def do_HEAD(self) -> None:
            self._answer(is_head=True)

        def do_GET(self) -> None:
            self._answer(is_head=False)

        def _answer(self, is_head: bool) -> None:
            path = self.path.partition("?")[0]
            model = f"/api/models/{hub_id}"
            if path.startswith(f"{model}/tree/"):
                files = [
                    {"type": "file", "path": file.name, "size": file.stat().st_size, "oid": ""}
                    for file in self.folder_files
                ]
                self._send(json.dumps(files).encode())
            elif path.startswith(model):
                siblings = [{"rfilename": file.name} for file in self.folder_files]
                self._send(json.dumps({"id": hub_id, "sha": COMMIT, "siblings": siblings}).encode())
            elif path.startswith(f"/{hub_id}/resolve/{COMMIT}/"):
                file = folder / path.rpartition("/")[2]
                content = file.read_bytes()
                tag = hashlib.sha1(content).hexdigest()
                self._send(content, is_head, {"ETag": f'"{tag}"', "X-Repo-Commit": COMMIT})
                if not is_head:
                    downloaded.append(file.name)
            else:
                self.send_error(404)

        def _send(
            self, content: bytes, is_head: bool = False, headers: dict[str, str] | None = None
        ) -> None:
            self.send_response(200)
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if not is_head:
                self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        # The client's threads keep their connections.
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        endpoint = f"http://127.0.0.1:{server.server_port}"
        files = f"{endpoint}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        # What the environment's HF_ENDPOINT comes to.
        monkeypatch.setattr(constants, "ENDPOINT", endpoint)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", files)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        # Several updates of the progress, however small the model is.
        monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 2**16)
        try:
            yield downloaded
        finally:
            server.shutdown()
