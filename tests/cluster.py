"""A double of a Kubernetes cluster: pods of the executor run as processes of this machine.

Nothing real can serve here, for a cluster takes a kernel's control groups and images. The double
knows the calls that Airflow's executor makes, judges each pod by Kubernetes' own schemas, and runs
its command with its environment and mounts. It has no nodes, no images and no limits.
"""

from __future__ import annotations

import copy
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

import kubernetes_validate
import yaml

NAMESPACE = "automl"
Document = dict[str, Any]
_PATH = re.compile(r"/api/v1/namespaces/([^/]+)/pods(?:/([^/]+))?(/log)?")
_VERBS = ["create", "delete", "get", "list", "patch", "watch"]
_VERSION = {"major": "1", "minor": "37", "gitVersion": "v1.37.0"}
_ENDED = frozenset({"Succeeded", "Failed"})


@dataclass(frozen=True)
class Node:
    """Node of the cluster: what pods find on this machine.

    Attributes:
        volumes: a folder for each ConfigMap and Secret that pods mount.
        settings: variables of each ConfigMap that pods take over.
        replaced: text of variables that is different here, such as addresses of services.
        env: variables of the image.
        folder: for what pods write.
    """

    volumes: Mapping[str, Path]
    settings: Mapping[str, Mapping[str, str]]
    replaced: Mapping[str, str]
    env: Mapping[str, str]
    folder: Path

    def run(self, pod: Document) -> subprocess.Popen[bytes]:
        """Start the command of a pod's container."""
        spec, name = pod["spec"], pod["metadata"]["name"]
        (container,) = spec["containers"]
        places = self._places(spec, container, self.folder / name)
        env = {**os.environ, **self.env}
        for source in container.get("envFrom", []):
            env |= self.settings[source["configMapRef"]["name"]]
        env |= {each["name"]: self._here(each["value"], places) for each in container["env"]}
        env |= {"HOME": str(self.folder / name), "TMPDIR": places["/tmp"]}  # noqa: S108 - a mount
        words = [*container.get("command", []), *container["args"]]
        assert words[0] == "python"
        log = self.folder / f"{name}.log"
        with log.open("wb") as output:
            return subprocess.Popen(
                [sys.executable, *words[1:]],
                cwd=self.folder / name,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _places(self, spec: Document, container: Document, own: Path) -> dict[str, str]:
        """Return the folder here for each path of a mount."""
        own.mkdir()
        volumes = {each["name"]: each for each in spec["volumes"]}
        places = {}
        for mount in container["volumeMounts"]:
            volume = volumes[mount["name"]]
            if "emptyDir" in volume:
                place = own / mount["name"]
                place.mkdir()
            else:
                kept = volume.get("secret", {}).get("secretName") or volume["configMap"]["name"]
                place = self.volumes[kept]
            places[mount["mountPath"]] = str(place)
        return places

    def _here(self, value: str, places: Mapping[str, str]) -> str:
        for there, here in {**self.replaced, **places}.items():
            if value == there or value.startswith(f"{there}/"):
                return here + value.removeprefix(there)
        return value


@dataclass
class Cluster:
    """Pods of one namespace, and the server of their interface.

    Attributes:
        node: where pods run.
        created: every pod as it was asked for, by name.
        evicted: names of pods that were ended by `evict`.
    """

    node: Node
    created: dict[str, Document] = field(default_factory=dict)
    evicted: list[str] = field(default_factory=list)
    _pods: dict[str, Document] = field(default_factory=dict)
    _events: list[tuple[str, Document]] = field(default_factory=list)
    _processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    _changed: threading.Condition = field(default_factory=threading.Condition)

    def __enter__(self) -> Self:
        handler = type("Handler", (_Handler,), {"pods": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        for process in self._processes.values():
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    def write_config(self, path: Path) -> Path:
        """Write a file with which clients find the cluster, and return its path."""
        host, port = self._server.server_address[:2]
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "here", "cluster": {"server": f"http://{host!s}:{port}"}}],
            "users": [{"name": "me", "user": {"token": "none"}}],
            "contexts": [{"name": "it", "context": {"cluster": "here", "user": "me"}}],
            "current-context": "it",
        }
        path.write_text(yaml.safe_dump(document))
        return path

    def names(self, **annotations: str) -> list[str]:
        """Return the names of pods that run and have annotations, such as `task_id`."""
        with self._changed:
            return [
                name
                for name, pod in self._pods.items()
                if pod["status"]["phase"] == "Running"
                and annotations.items() <= pod["metadata"]["annotations"].items()
            ]

    def log(self, name: str) -> str:
        """Return what a pod has printed."""
        return (self.node.folder / f"{name}.log").read_text(errors="replace")

    def evict(self, name: str) -> None:
        """End a pod as a drained node does: SIGTERM, and SIGKILL after its time to end."""
        self.evicted.append(name)
        self.delete(name)

    def create(self, pod: Document) -> Document:
        """Accept a pod and start it.

        Raises:
            kubernetes_validate.ValidationError: its document is not a pod's.
        """
        kubernetes_validate.validate(pod, "1.37", strict=True)
        name = pod["metadata"]["name"]
        kept = copy.deepcopy(pod)
        kept["metadata"] |= {"namespace": NAMESPACE, "uid": str(uuid.uuid4())}
        kept["status"] = {"phase": "Pending"}
        with self._changed:
            assert name not in self.created
            self.created[name] = copy.deepcopy(pod)
            self._pods[name] = kept
            self._tell("ADDED", name)
            self._processes[name] = self.node.run(kept)
            self._set(name, {"phase": "Running"})
        threading.Thread(target=self._await_end, args=(name,), daemon=True).start()
        return kept

    def _await_end(self, name: str) -> None:
        code = self._processes[name].wait()
        state = {"terminated": {"exitCode": code, "reason": "Error" if code else "Completed"}}
        status = {
            "phase": "Failed" if code else "Succeeded",
            "containerStatuses": [
                {
                    "name": "base", "image": "x", "imageID": "x", "ready": False,
                    "restartCount": 0, "state": state,
                }
            ],
        }  # fmt: skip
        with self._changed:
            if name in self._pods:
                self._set(name, status)

    def delete(self, name: str) -> Document | None:
        """Ask a pod to end and forget it when it has; None if there is none."""
        with self._changed:
            pod = self._pods.get(name)
            if pod is None:
                return None
            is_first = "deletionTimestamp" not in pod["metadata"]
            pod["metadata"]["deletionTimestamp"] = time.strftime("%Y-%m-%dT%H:%M:%SZ")
            self._tell("MODIFIED", name)
        if is_first:
            threading.Thread(target=self._end, args=(name,), daemon=True).start()
        return pod

    def _end(self, name: str) -> None:
        process, pod = self._processes[name], self._pods[name]
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(pod["spec"]["terminationGracePeriodSeconds"])
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        with self._changed:
            self._tell("DELETED", name)
            del self._pods[name]

    def patch(self, name: str, change: Document) -> Document | None:
        """Change labels of a pod; None if there is none."""
        with self._changed:
            pod = self._pods.get(name)
            if pod is not None:
                pod["metadata"]["labels"] |= change["metadata"]["labels"]
                self._tell("MODIFIED", name)
            return pod

    def listed(self, selector: str) -> Document:
        """Return the pods that a selector of labels takes."""
        with self._changed:
            pods = [copy.deepcopy(pod) for pod in self._pods.values() if _takes(selector, pod)]
            version = str(len(self._events))
        return {"kind": "PodList", "apiVersion": "v1", "metadata": {"resourceVersion": version},
                "items": pods}  # fmt: skip

    def watched(self, selector: str, after: int, until_s: float) -> Iterator[Document]:
        """Yield events of the pods that a selector takes, as they happen."""
        for n in itertools.count(after):
            with self._changed:
                while n >= len(self._events):
                    if not self._changed.wait(max(0.0, until_s - time.monotonic())):
                        return
                kind, pod = self._events[n]
            if _takes(selector, pod):
                yield {"type": kind, "object": pod}

    def _set(self, name: str, status: Document) -> None:
        self._pods[name]["status"] = status
        self._tell("MODIFIED", name)

    def _tell(self, kind: str, name: str) -> None:
        pod = self._pods[name]
        pod["metadata"]["resourceVersion"] = str(len(self._events) + 1)
        self._events.append((kind, copy.deepcopy(pod)))
        self._changed.notify_all()


def _takes(selector: str, pod: Document) -> bool:
    labels = pod["metadata"].get("labels", {})
    for term in filter(None, selector.split(",")):
        name, is_not, value = re.fullmatch(r"([^=!]+)(!?)=(.*)", term).groups()  # type: ignore[union-attr]
        if (labels.get(name) == value) == bool(is_not):
            return False
    return True


class _Handler(BaseHTTPRequestHandler):
    """The calls that Airflow's executor makes."""

    pods: Cluster
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        asked = {name: values[0] for name, values in parse_qs(url.query).items()}
        pod = {"name": "pods", "singularName": "pod", "namespaced": True, "kind": "Pod"}
        fixed: dict[str, Document] = {
            "/version": _VERSION,
            "/apis": {"kind": "APIGroupList", "groups": []},
            "/api/v1": {"kind": "APIResourceList", "groupVersion": "v1",
                        "resources": [{**pod, "verbs": _VERBS}]},
        }  # fmt: skip
        if url.path in fixed:
            self._answer(200, fixed[url.path])
        elif not self._name():
            selector = asked.get("labelSelector", "")
            if asked.get("watch") in {"true", "True"}:
                self._stream(selector, asked)
            else:
                self._answer(200, self.pods.listed(selector))
        else:
            found = [each for each in self.pods.listed("")["items"]
                     if each["metadata"]["name"] == self._name()]  # fmt: skip
            self._answer(200, found[0]) if found else self._answer(404, None)

    def _stream(self, selector: str, asked: Mapping[str, str]) -> None:
        self._head({"Transfer-Encoding": "chunked"}, 200)
        until_s = time.monotonic() + float(asked.get("timeoutSeconds", 60))
        after = int(asked.get("resourceVersion", 0))
        try:
            for event in self.pods.watched(selector, after, until_s):
                line = json.dumps(event).encode() + b"\n"
                self.wfile.write(f"{len(line):x}\r\n".encode() + line + b"\r\n")
            self.wfile.write(b"0\r\n\r\n")
        except (BrokenPipeError, ConnectionResetError):
            pass

    def do_POST(self) -> None:
        try:
            self._answer(201, self.pods.create(self._body()))
        except kubernetes_validate.ValidationError as error:
            self._answer(422, {"kind": "Status", "message": str(error)[:500], "code": 422})

    def do_PATCH(self) -> None:
        self._found(self.pods.patch(self._name(), self._body()))

    def do_DELETE(self) -> None:
        self._body()
        self._found(self.pods.delete(self._name()))

    def _found(self, pod: Document | None) -> None:
        self._answer(404 if pod is None else 200, pod)

    def _name(self) -> str:
        found = _PATH.fullmatch(urlsplit(self.path).path)
        assert found, self.path
        assert found[1] == NAMESPACE
        return found[2] or ""

    def _body(self) -> Document:
        length = int(self.headers.get("Content-Length") or 0)
        body: Document = json.loads(self.rfile.read(length) or b"{}")
        return body

    def _head(self, headers: Mapping[str, str], code: int) -> None:
        self.send_response(code)
        for name, value in ({"Content-Type": "application/json"} | dict(headers)).items():
            self.send_header(name, value)
        self.end_headers()

    def _answer(self, code: int, document: Document | None) -> None:
        failure = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code}
        body = json.dumps(document or failure).encode()
        self._head({"Content-Length": str(len(body))}, code)
        self.wfile.write(body)
