"""A stand-in of the hub's HTTP interface, as far as huggingface_hub uploads by it: accounts and tokens,
repositories, listings, preupload, LFS (single requests and parts, verified), commits. What it should refuse
or break off is written into `faults` before."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

WRITER, READER = "hf_standInWriterToken000001", "hf_standInReaderToken000001"
CUT = 0  # as a fault's status: the connection is closed without an answer
_LFS = (".safetensors", ".gguf", ".bin")


@dataclass
class Repository:
    """`commits` are trees, the newest last: path -> ("lfs", SHA-256) or ("file", content)."""

    private: bool
    commits: list[dict[str, tuple[str, object]]] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)

    @property
    def head(self) -> str:
        return revision(len(self.commits) - 1)


def revision(index: int) -> str:
    return f"{index:040x}"


@dataclass
class Fault:
    """The next `times` requests of `method` whose path holds `part` are answered with `status`, after
    `read_bytes` of their body were read."""

    method: str
    part: str
    status: int
    times: int = 1
    read_bytes: int | None = None
    headers: dict[str, str] = field(default_factory=dict)


class StandIn(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, chunk_bytes: int = 1 << 20) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.chunk_bytes = chunk_bytes
        self.repositories: dict[str, Repository] = {}
        self.objects: dict[str, bytes] = {}
        self.parts: dict[tuple[str, int], bytes] = {}
        self.faults: list[Fault] = []
        self.requests: list[str] = []
        self.received_bytes = 0  # of large files
        self.cards: dict[str, dict[str, object]] = {}
        self.hold_uploads = threading.Event()  # while clear, uploads wait
        self.hold_uploads.set()
        self.lock = threading.RLock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def make(self, name: str, *, private: bool, **files: bytes) -> Repository:
        tree: dict[str, tuple[str, object]] = {".gitattributes": ("file", b"*.safetensors filter=lfs\n")}
        tree |= {path.replace("__", "."): ("file", content) for path, content in files.items()}
        self.repositories[name] = Repository(private, [tree], ["initial commit"])
        return self.repositories[name]

    def contents(self, name: str) -> dict[str, bytes]:
        """The files of the newest commit, whole."""
        tree = self.repositories[name].commits[-1]
        return {path: self.bytes_of(entry) for path, entry in tree.items()}

    def bytes_of(self, entry: tuple[str, object]) -> bytes:
        kind, value = entry
        return self.objects[str(value)] if kind == "lfs" else bytes(value)  # type: ignore[call-overload]

    def fault(self, method: str, path: str) -> Fault | None:
        with self.lock:
            for fault in self.faults:
                if fault.times > 0 and fault.method == method and fault.part in path:
                    fault.times -= 1
                    return fault
        return None


@contextmanager
def serving(**options: int) -> Iterator[StandIn]:
    server = StandIn(**options)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield server
    finally:
        server.hold_uploads.set()
        server.shutdown()
        server.server_close()


class Handler(BaseHTTPRequestHandler):
    server: StandIn
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *arguments: object) -> None:
        pass

    def do_GET(self) -> None:
        self._handle()

    def do_POST(self) -> None:
        self._handle()

    def do_PUT(self) -> None:
        self._handle()

    def _handle(self) -> None:
        path = unquote(urlsplit(self.path).path)
        with self.server.lock:
            self.server.requests.append(f"{self.command} {path}")
        if fault := self.server.fault(self.command, path):
            self.rfile.read(int(self.headers.get("Content-Length") or 0) if fault.status else 16)
            self.close_connection = True
            if fault.status != CUT:
                self._answer({"error": f"injected {fault.status}"}, fault.status, **fault.headers)
            return
        if path.startswith("/lfs/"):
            return self._lfs(path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        account = {WRITER: "write", READER: "read"}.get(self.headers.get("Authorization", "")[7:])
        if path == "/api/validate-yaml":
            return self._answer({"warnings": [], "errors": []})
        if path.startswith("/api/models/team/base"):
            return self._answer({"id": "team/base", "cardData": self.server.cards.get("team/base", {})})
        if account is None:
            return self._answer({"error": "Invalid username or password."}, 401)
        with self.server.lock:
            self._route(path, body, account)

    def _route(self, path: str, body: bytes, role: str) -> None:
        if path == "/api/whoami-v2":
            token = {"accessToken": {"displayName": "test", "role": role}}
            return self._answer(
                {"name": "somebody", "type": "user", "orgs": [{"name": "org"}], "auth": token}
            )
        if role == "read" and self.command == "POST":
            return self._answer({"error": "You don't have the rights"}, 403)
        if path == "/api/repos/create":
            return self._create(json.loads(body))
        if path.endswith(".git/info/lfs/objects/batch"):
            return self._batch(json.loads(body))
        name = "/".join(path.split("/")[3:5])
        repository = self.server.repositories.get(name)
        if repository is None:
            return self._answer({"error": "Repository not found"}, 404, **{"X-Error-Code": "RepoNotFound"})
        action, _, wanted = "/".join(path.split("/")[5:]).partition("/")
        index = int(wanted, 16) if len(wanted) == 40 else len(repository.commits) - 1
        if action in ("", "revision"):
            self._answer({"id": name, "sha": revision(index), "private": repository.private, "siblings": []})
        elif action == "tree":
            self._answer([self._listed(item) for item in sorted(repository.commits[index].items())])
        elif action == "preupload":
            self._preupload(repository, json.loads(body))
        elif action == "commit":
            self._commit(name, repository, body)

    def _create(self, wanted: dict[str, str]) -> None:
        name = f"{wanted['organization']}/{wanted['name']}"
        if wanted["organization"] not in ("org", "somebody"):
            return self._answer({"error": "You don't have the rights to create a model there"}, 403)
        if name in self.server.repositories:
            return self._answer({"error": "You already created this model repo"}, 409)
        self.server.make(name, private=wanted.get("visibility") == "private")
        self._answer({"url": f"{self.server.url}/{name}"})

    def _listed(self, item: tuple[str, tuple[str, object]]) -> dict[str, object]:
        path, entry = item
        content = self.server.bytes_of(entry)
        facts = {"type": "file", "path": path, "size": len(content), "oid": git_id(content)}
        if entry[0] == "lfs":
            facts["lfs"] = {"oid": entry[1], "size": len(content), "pointerSize": 134}
        return facts

    def _preupload(self, repository: Repository, wanted: dict[str, list[dict[str, str]]]) -> None:
        there, ignored = repository.commits[-1], b""
        if ".gitignore" in there:
            ignored = self.server.bytes_of(there[".gitignore"])
        files = []
        for file in wanted["files"]:
            path = file["path"]
            entry = there.get(path)
            oid = None if entry is None else entry[1] if entry[0] == "lfs" else git_id(bytes(entry[1]))  # type: ignore[call-overload]
            files.append(
                {
                    "path": path,
                    "uploadMode": "lfs" if path.endswith(_LFS) else "regular",
                    "shouldIgnore": path.encode() in ignored.split(),
                    "oid": oid,
                }
            )
        self._answer({"files": files})

    def _batch(self, wanted: dict[str, list[dict[str, object]]]) -> None:
        answers = []
        for item in wanted["objects"]:
            oid, size = str(item["oid"]), int(item["size"])  # type: ignore[call-overload]
            answer: dict[str, object] = {"oid": oid, "size": size}
            if oid not in self.server.objects:
                url, header = self.server.url, {}
                href = f"{url}/lfs/single/{oid}?X-Amz-Signature=signedBySecret0123"
                if size > self.server.chunk_bytes:
                    parts = -(-size // self.server.chunk_bytes)
                    header = {f"{n:05d}": f"{url}/lfs/part/{oid}/{n}" for n in range(1, parts + 1)}
                    header["chunk_size"] = str(self.server.chunk_bytes)
                    href = f"{url}/lfs/complete/{oid}"
                upload = {"href": href, "header": header}
                answer["actions"] = {"upload": upload, "verify": {"href": f"{url}/lfs/verify"}}
            answers.append(answer)
        self._answer({"objects": answers, "transfer": "basic"})

    def _lfs(self, path: str) -> None:
        assert "Authorization" not in self.headers or path.endswith("/verify")  # never to the storage
        self.server.hold_uploads.wait(30)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        _, _, action, *names = path.split("/")
        with self.server.lock:
            if action == "single":
                self.server.received_bytes += len(body)
                if hashlib.sha256(body).hexdigest() != names[0]:
                    return self._answer({"error": "digest"}, 400)
                self.server.objects[names[0]] = body
            elif action == "part":
                self.server.received_bytes += len(body)
                self.server.parts[names[0], int(names[1])] = body
            elif action == "complete":
                listed = [part["partNumber"] for part in json.loads(body)["parts"]]
                whole = b"".join(self.server.parts[names[0], number] for number in listed)
                if hashlib.sha256(whole).hexdigest() != names[0]:
                    return self._answer({"error": "digest"}, 400)
                self.server.objects[names[0]] = whole
            elif action == "verify":
                wanted = json.loads(body)
                if len(self.server.objects.get(wanted["oid"], b"")) != wanted["size"]:
                    return self._answer({"error": "not there"}, 404)
        self._answer({}, ETag=hashlib.md5(body).hexdigest())

    def _commit(self, name: str, repository: Repository, body: bytes) -> None:
        header, *rows = [json.loads(line) for line in body.splitlines()]
        if header["value"].get("parentCommit", repository.head) != repository.head:
            return self._answer({"error": "The repository has changed"}, 412)
        tree = dict(repository.commits[-1])
        for row in rows:
            value = row["value"]
            if row["key"] == "file":
                tree[value["path"]] = ("file", base64.b64decode(value["content"]))
            elif row["key"] == "lfsFile":
                if value["oid"] not in self.server.objects:
                    return self._answer({"error": f"no object {value['oid']}"}, 400)
                tree[value["path"]] = ("lfs", value["oid"])
            elif row["key"] == "deletedFile":
                del tree[value["path"]]
        repository.commits.append(tree)
        repository.messages.append(header["value"]["summary"])
        address = f"{self.server.url}/{name}/commit/{repository.head}"
        if lost := self.server.fault("ANSWER", "/commit/"):
            self.close_connection = True
            return self._answer({"error": "lost"}, lost.status) if lost.status else None
        self._answer({"commitUrl": address, "commitOid": repository.head, "pullRequestUrl": None})

    def _answer(self, value: object, status: int = 200, **headers: str) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        for name, text in {
            "Content-Type": "application/json",
            "Content-Length": str(len(body)),
            **headers,
        }.items():
            self.send_header(name, text)
        self.end_headers()
        self.wfile.write(body)


def git_id(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
