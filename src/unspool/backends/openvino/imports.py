"""The one door to OpenVINO and NNCF, through which they send nothing.

Both post usage events and leave a client id in the home directory if the package ``openvino_telemetry`` can be imported
while they are; where it cannot, they take stubs of their own. So it is hidden while they are imported.
The settings of a user stay: the package, its files and what other code makes of it are not touched.
"""

from __future__ import annotations

import importlib
import sys
import threading
from typing import Any

_TELEMETRY = "openvino_telemetry"
_lock = threading.Lock()


def imported(name: str) -> Any:
    """A module of OpenVINO, NNCF or what builds on them, such as ``"openvino"`` or ``"openvino.opset13"``.

    A program that imported one of them before sends what it sent before.
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
