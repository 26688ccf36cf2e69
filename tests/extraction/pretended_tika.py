"""Stands in for `java -jar tika-server.jar`: the part of its interface that we use, and files that hang or end it."""

from __future__ import annotations

import json
import os
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._say(b"Apache Tika")

    def do_PUT(self) -> None:
        content = b""
        while size := int(self.rfile.readline(), 16):
            content += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        if b"HANG" in content:
            time.sleep(600)
        if b"CRASH" in content:
            os._exit(3)
        name = self.headers["content-disposition"]
        self._say(json.dumps({"X-TIKA:content": content.decode(), "name": name}).encode())

    def _say(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        return


port = int(sys.argv[sys.argv.index("--port") + 1])
ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()
