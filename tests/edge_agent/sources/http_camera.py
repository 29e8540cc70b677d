"""A camera on the network: motion JPEG over HTTP, which can fall silent, close or send rubbish."""

import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType

import cv2
import numpy as np


class HttpCamera:
    """`mode` is good, silent (the connection stays), closed, rubbish or mute (never answers)."""

    def __init__(self, fps: float = 25.0) -> None:
        self.mode = "good"
        self.size = (48, 64)
        self.connections = 0
        self._period = 1 / fps
        self._over = threading.Event()
        camera = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                camera.connections += 1
                camera._serve(self)

            def log_message(self, *_args: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_args: object) -> None:
                pass  # a client that went away

        self._server = Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def url(self) -> str:
        return f"http://user:secret@127.0.0.1:{self._server.server_port}/stream.mjpg"

    def __enter__(self) -> "HttpCamera":
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _serve(self, handler: BaseHTTPRequestHandler) -> None:
        while self.mode == "mute" and not self._over.wait(0.05):
            pass
        handler.send_response(200)
        handler.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        handler.end_headers()
        shade = 0
        while not self._over.wait(self._period):
            if self.mode == "closed":
                return
            if self.mode in {"silent", "mute"}:
                continue
            shade = (shade + 1) % 200
            image = np.full((*self.size, 3), shade, np.uint8)
            data = cv2.imencode(".jpg", image)[1].tobytes()
            if self.mode == "rubbish":
                data = bytes(np.random.default_rng(shade).integers(0, 256, len(data), np.uint8))
            head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(data)}\r\n\r\n"
            handler.wfile.write(head.encode() + data + b"\r\n")
            handler.wfile.flush()
            time.sleep(0)
