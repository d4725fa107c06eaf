"""A real RTSP server (GStreamer's), run by the system's own Python, which has its bindings: `rtsp_server.py JSON`.

The JSON: `port` (0: any), `streams` {path: {launch, slow_s}}, `user` and `password` or neither. It prints its port.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import gi  # type: ignore[import-not-found]

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer  # type: ignore[import-not-found]  # noqa: E402


class Slow(GstRtspServer.RTSPMediaFactory):  # type: ignore[misc]
    """A stream that takes its time to begin."""

    def __init__(self, launch: str, slow_s: float) -> None:
        super().__init__()
        self.launch, self.slow_s = launch, slow_s

    def do_create_element(self, _url: object) -> Any:
        time.sleep(self.slow_s)
        return Gst.parse_launch(self.launch)


def main(requested: dict[str, Any]) -> None:
    Gst.init(None)
    server = GstRtspServer.RTSPServer()
    server.set_address("127.0.0.1")
    server.set_service(str(requested["port"]))
    if requested.get("user"):
        auth, token = GstRtspServer.RTSPAuth(), GstRtspServer.RTSPToken()
        token.set_string("media.factory.role", "viewer")
        auth.add_basic(GstRtspServer.RTSPAuth.make_basic(requested["user"], requested["password"]), token)
        server.set_auth(auth)
    for path, stream in requested["streams"].items():
        factory = Slow(stream["launch"], stream.get("slow_s", 0.0))
        factory.set_shared(True)
        if requested.get("user"):
            permissions = GstRtspServer.RTSPPermissions()
            for right in ("access", "construct"):
                permissions.add_permission_for_role("viewer", f"media.factory.{right}", True)
            factory.set_permissions(permissions)
        server.get_mount_points().add_factory(path, factory)
    server.attach(None)
    print(server.get_bound_port(), flush=True)
    GLib.MainLoop().run()


main(json.loads(sys.argv[1]))
