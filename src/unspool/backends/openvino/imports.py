"""The only place that imports OpenVINO and NNCF; it keeps them from sending telemetry.

If the package ``openvino_telemetry`` can be imported, both post usage events and leave a client id in the home
directory; without it they use stubs. So it is hidden while they are imported. The user's settings stay: the package,
its files and other code that uses it are not touched.
"""

from __future__ import annotations

import importlib
import sys
import threading
from typing import Any

_TELEMETRY = "openvino_telemetry"
_lock = threading.Lock()


def imported(name: str) -> Any:
    """A module of OpenVINO, NNCF or a library based on them, such as ``"openvino"`` or ``"openvino.opset13"``.

    A program that imported one of them before keeps its telemetry.
    """
    with _lock:
        hidden = {key: sys.modules[key] for key in list(sys.modules) if key.split(".")[0] == _TELEMETRY}
        for key in hidden:
            del sys.modules[key]
        sys.modules[_TELEMETRY] = None  # type: ignore[assignment]  # importing it raises ImportError
        try:
            return importlib.import_module(name)
        finally:
            del sys.modules[_TELEMETRY]
            sys.modules.update(hidden)
