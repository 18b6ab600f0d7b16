"""Sends requests at a steady rate to whoever is ready, as a proxy on a node would: run in a pod, not imported.

    python3 -c <this> API NAMESPACE SERVICE RATE [COUNT]

until its standard input ends, or so many are sent; then it prints what became of them. API is the address of the Kubernetes API.
The ready addresses are those of the Service's EndpointSlices, which it watches; requests begin at absolute times, so that a slow
answer delays no other, and each has a connection of its own.
"""

from __future__ import annotations

import asyncio
import json
import math
import random
import ssl
import sys
import threading
import time
from collections import Counter
from urllib.parse import urlencode
from urllib.request import Request, urlopen

ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
TIMEOUT_SECONDS = 5.0

slices: dict[str, dict] = {}
"""By name, as the watch has them now."""


def watch(api: str, namespace: str, service: str) -> None:
    """Keep `slices` as they are; a watch that the server ends begins again with what there is."""
    selector = f"kubernetes.io/service-name={service}"
    query = urlencode({"watch": "true", "labelSelector": selector, "sendInitialEvents": "true", "allowWatchBookmarks": "true"})
    query += "&resourceVersionMatch=NotOlderThan"
    with open(f"{ACCOUNT}/token") as file:
        headers = {"Authorization": f"Bearer {file.read()}"}
    url = f"https://{api}/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices?{query}"
    trust = ssl.create_default_context(cafile=f"{ACCOUNT}/ca.crt")
    while True:
        with urlopen(Request(url, headers=headers), context=trust) as events:
            slices.clear()
            for line in events:
                event = json.loads(line)
                name = event["object"]["metadata"].get("name", "")
                if event["type"] == "DELETED":
                    slices.pop(name, None)
                elif event["type"] != "BOOKMARK":
                    slices[name] = event["object"]


def ready() -> list[tuple[str, int]]:
    """Addresses and ports of the endpoints that are ready."""
    return [
        (address, slice_["ports"][0]["port"])
        for slice_ in list(slices.values())
        for endpoint in slice_.get("endpoints") or ()
        if endpoint["conditions"].get("ready")
        for address in endpoint["addresses"]
    ]


async def ask(address: str, port: int) -> str:
    """The body of the answer to one request. OSError or ValueError when there is none, or another status than 200."""
    reader, writer = await asyncio.open_connection(address, port)
    try:
        writer.write(f"GET / HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n".encode())
        head, found, body = (await reader.read()).partition(b"\r\n\r\n")
    finally:
        writer.close()
    status = head.split(b"\r\n")[0].decode()
    if not found or " 200 " not in status:
        raise ValueError(f"no whole answer: {status!r}")
    return body.decode()


async def send(answers: Counter[str], failures: Counter[str]) -> None:
    """One request, and what became of it."""
    places = ready()
    if not places:
        failures["nobody is ready"] += 1
        return
    try:
        async with asyncio.timeout(TIMEOUT_SECONDS):
            answers[await ask(*random.choice(places))] += 1
    except (OSError, ValueError, TimeoutError) as error:
        failures[f"{type(error).__name__}: {error}"] += 1


async def run(rate: float, count: float, ended: threading.Event) -> dict:
    """Send so many, unless it is ended before; what became of all requests."""
    answers: Counter[str] = Counter()
    failures: Counter[str] = Counter()
    tasks = set()
    began = time.monotonic()
    sent = 0
    while sent < count and not ended.is_set():
        await asyncio.sleep(began + sent / rate - time.monotonic())
        tasks.add(task := asyncio.create_task(send(answers, failures)))
        task.add_done_callback(tasks.discard)
        sent += 1
    seconds = time.monotonic() - began
    await asyncio.gather(*tasks)
    return {"sent": sent, "seconds": seconds, "answers": answers, "failures": failures}


def main() -> None:
    """Watch, wait for somebody to be ready, send, report."""
    api, namespace, service, rate, *count = sys.argv[1:]
    threading.Thread(target=watch, args=(api, namespace, service), daemon=True).start()
    while not ready():
        time.sleep(0.01)
    print("begins", flush=True)
    ended = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
    print(json.dumps(asyncio.run(run(float(rate), float(count[0]) if count else math.inf, ended))), flush=True)


if __name__ == "__main__":
    main()
