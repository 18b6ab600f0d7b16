"""A watch of one resource that notes when each change arrives."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Callable
from typing import Any

from podplane.kubeapi.access import Access

Object = dict[str, Any]


class Watch:
    """All changes of a collection, from now on, in a thread of its own."""

    def __init__(self, access: Access, path: str) -> None:
        self.seen: list[tuple[float, str, Object]] = []
        self._news = threading.Condition()
        self._connection = http.client.HTTPSConnection(access.host, access.port, context=access.context())
        self._connection.request("GET", f"{path}?watch=true", headers={"Authorization": f"Bearer {access.bearer()}"})
        self._answer = self._connection.getresponse()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        for line in self._answer:
            event = json.loads(line)
            with self._news:
                self.seen.append((time.monotonic(), event["type"], event["object"]))
                self._news.notify_all()

    def until(self, wanted: Callable[[str, Object], bool], since: float = 0.0, seconds: float = 60.0) -> float:
        """When the first change after `since` came that is wanted. TimeoutError when none does."""
        end, looked = time.monotonic() + seconds, 0
        with self._news:
            while True:
                for at, kind, object_ in self.seen[looked:]:
                    if at >= since and wanted(kind, object_):
                        return at
                looked = len(self.seen)
                if not self._news.wait(end - time.monotonic()):
                    raise TimeoutError(f"no such change within {seconds:g} s")

    def last(self, since: float) -> float:
        """When the last change came, `since` if none has come after that."""
        with self._news:
            return max([since, *(at for at, _, _ in self.seen)])
