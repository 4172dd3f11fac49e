"""A Hub on loopback: repositories of models and data sets in memory, over the HTTP calls of `huggingface_hub`.

It is written from the client's calls, so it tests our side of the conversation, not the Hub's. What it does not know
it answers with 404 and keeps in `unknown`, which the tests compare with nothing.
"""

import base64
import hashlib
import http.server
import json
import re
import threading
import urllib.parse
from dataclasses import dataclass, field

import yaml


DATE = "2026-01-01T00:00:00.000Z"
TOKEN = "hf_dummy"
#: Of the Hub's lists, those that a card of ours may name.
LICENSES = {"apache-2.0", "cc-by-4.0", "mit"}
PIPELINE_TAGS = {"feature-extraction", "tabular-classification", "tabular-regression", "other"}


@dataclass
class Repository:
    """A history of snapshots: commit -> path -> content. `titles` are their messages, in order."""

    kind: str
    name: str
    private: bool = False
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    titles: list[str] = field(default_factory=list)
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)

    def commit(self, files: dict[str, bytes], title: str, branch: str = "main") -> str:
        """Add a snapshot on a branch and return its identifier."""
        oid = hashlib.sha1(f"{title} {len(self.commits)} {sorted(files)}".encode()).hexdigest()
        self.commits[oid] = files
        self.titles.append(title)
        self.branches[branch] = oid
        return oid

    def resolve(self, revision: str) -> str | None:
        """The commit that a branch, a tag or a commit's own identifier stands for."""
        revision = urllib.parse.unquote(revision)
        found = self.branches.get(revision) or self.tags.get(revision) or revision
        return found if found in self.commits else None


class HubServer(http.server.ThreadingHTTPServer):
    """Serves repositories below `url`.

    Attributes:
        repositories: (kind, name) -> repository; kind is "models" or "datasets".
        blobs: sha256 -> content that was uploaded as a large file.
        requests: method and path of every request.
        unknown: those that nothing here answers.
    """

    daemon_threads = True
    request_queue_size = 64

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.repositories: dict[tuple[str, str], Repository] = {}
        self.blobs: dict[str, bytes] = {}
        self.requests: list[str] = []
        self.unknown: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def create(self, kind: str, name: str, private: bool = False) -> Repository:
        repository = Repository(kind, name, private)
        repository.commit({".gitattributes": b"*.safetensors filter=lfs\n"}, "initial commit")
        self.repositories[kind, name] = repository
        return repository

    def handle_error(self, request, client_address) -> None:
        """Clients that go away are no error here."""

    def __enter__(self) -> "HubServer":
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_) -> None:
        self.shutdown()
        self.server_close()


def is_large(path: str) -> bool:
    """Whether a file goes to the large-file storage."""
    return path.endswith((".safetensors", ".parquet", ".bin", ".png"))


def blob_id(content: bytes) -> str:
    """Git's identifier of a file."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def entry(path: str, content: bytes) -> dict:
    """A file as the Hub describes it."""
    described = {"type": "file", "path": path, "size": len(content), "oid": blob_id(content)}
    described["lastCommit"] = {"id": "0" * 40, "title": "", "date": DATE}
    if is_large(path):
        sha256 = hashlib.sha256(content).hexdigest()
        described["lfs"] = {"oid": sha256, "size": len(content), "pointerSize": 130}
    return described


def folder_entry(path: str) -> dict:
    last = {"id": "0" * 40, "title": "", "date": DATE}
    return {"type": "directory", "path": path, "oid": "0" * 40, "size": 0, "lastCommit": last}


def problems_of_card(content: str) -> tuple[list[str], list[str]]:
    """Errors and warnings on the metadata of a README.md, as far as the Hub's rules are known."""
    match = re.match(r"---\n(.*?)\n---\n", content, re.DOTALL)
    if match is None:
        return [], ["empty or missing yaml metadata in repo card"]
    try:
        metadata = yaml.safe_load(match[1])
    except yaml.YAMLError as error:
        return [f"invalid YAML: {error}"], []
    errors = []
    if metadata.get("license", "mit") not in LICENSES:
        errors.append(f'"license" must be one of {sorted(LICENSES)}')
    for name in ("tags", "datasets", "metrics"):
        if not all(isinstance(each, str) for each in metadata.get(name) or []):
            errors.append(f'"{name}" must be a list of strings')
    for index, model in enumerate(metadata.get("model-index", [])):
        for number, result in enumerate(model.get("results", [])):
            where = f"model-index[{index}].results[{number}]"
            if not (isinstance(model.get("name"), str) and result.get("task", {}).get("type")):
                errors.append(f'"{where}" needs a name and task.type')
            if not {"name", "type"} <= set(result.get("dataset", {})):
                errors.append(f'"{where}.dataset" needs name and type')
            if not all("type" in each and "value" in each for each in result.get("metrics", [{}])):
                errors.append(f'"{where}.metrics" need type and value')
    tag = metadata.get("pipeline_tag")
    warnings = [] if tag is None or tag in PIPELINE_TAGS else [f'pipeline tag "{tag}" is not in the official list']
    return errors, warnings


REPOSITORY = r"(?P<owner>[\w.-]+)/(?P<name>[\w.-]+)"
API = r"/api/(?P<kind>models|datasets)/" + REPOSITORY
#: method, path -> method of `Handler`. The first that matches answers.
ROUTES: list[tuple[str, str, str]] = [
    ("POST", r"/api/repos/create", "create"),
    ("POST", r"/api/validate-yaml", "validate"),
    ("GET", r"/api/whoami-v2", "whoami"),
    ("GET", r"/api/agent-harnesses", "harnesses"),
    ("GET", API + r"(/revision/(?P<revision>[^/]+))?", "info"),
    ("GET", API + r"/refs", "refs"),
    ("GET", API + r"/tree/(?P<revision>[^/]+)(/(?P<path>.*))?", "tree"),
    ("POST", API + r"/paths-info/(?P<revision>[^/]+)", "paths_info"),
    ("POST", API + r"/preupload/(?P<revision>[^/]+)", "preupload"),
    ("POST", API + r"/commit/(?P<revision>[^/]+)", "commit"),
    ("POST", API + r"/tag/(?P<revision>[^/]+)", "tag"),
    ("POST", API + r"/branch/(?P<branch>[^/]+)", "branch"),
    ("POST", r"/(?P<kind>datasets/)?" + REPOSITORY + r"\.git/info/lfs/objects/batch", "large_files"),
    ("PUT", r"/large/(?P<sha256>[0-9a-f]{64})", "upload"),
    ("GET", r"/(?P<kind>datasets/)?" + REPOSITORY + r"/resolve/(?P<revision>[^/]+)/(?P<path>.+)", "resolve"),
]


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: HubServer

    def log_message(self, *arguments) -> None:
        """Silence."""

    def do_HEAD(self) -> None:
        self.route("GET")

    def do_GET(self) -> None:
        self.route("GET")

    def do_POST(self) -> None:
        self.route("POST")

    def do_PUT(self) -> None:
        self.route("PUT")

    def route(self, method: str) -> None:
        url = urllib.parse.urlsplit(self.path)
        self.query, self.body = urllib.parse.parse_qs(url.query), self.read_body()
        self.server.requests.append(f"{self.command} {url.path}")
        for known, pattern, name in ROUTES:
            match = re.fullmatch(pattern, url.path)
            if known == method and match:
                parts = match.groupdict()
                if "owner" in parts:
                    parts = self.with_repository(parts, method)
                    if parts is None:
                        return
                getattr(self, f"answer_{name}")(**parts)
                return
        self.server.unknown.append(f"{self.command} {self.path}")
        self.send(404, {"error": "unknown call"})

    def with_repository(self, parts: dict, method: str) -> dict | None:
        """The call's parts with its repository in place of the name, or None after an answer that there is none."""
        kind = (parts.pop("kind") or "models").strip("/")
        name = f"{parts.pop('owner')}/{parts.pop('name')}"
        repository = self.server.repositories.get((kind, name))
        is_known = self.headers.get("Authorization") == f"Bearer {TOKEN}"
        if repository is None or (repository.private or method != "GET") and not is_known:
            self.send(
                401 if not is_known else 404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"}
            )
            return None
        if parts.get("revision") is not None or "revision" in parts:
            revision = parts.pop("revision") or "main"
            parts["commit"] = repository.resolve(revision)
            parts["revision"] = urllib.parse.unquote(revision)
            if parts["commit"] is None:
                self.send(404, {"error": "Invalid rev id"}, {"X-Error-Code": "RevisionNotFound"})
                return None
        return {"repository": repository, **parts}

    def read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def send(self, status: int, content, headers: dict | None = None) -> None:
        """An answer with JSON, or bytes as they are; a HEAD request is sent no body."""
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        kind = "application/octet-stream" if isinstance(content, bytes) else "application/json"
        for name, value in {"Content-Type": kind, "Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def send_file(self, content: bytes, headers: dict) -> None:
        """A file or the range of it that is asked for."""
        match = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        headers = {"Accept-Ranges": "bytes", **headers}
        if not match:
            self.send(200, content, headers)
            return
        start, end = int(match[1]), min(int(match[2] or len(content) - 1), len(content) - 1)
        if start > end:
            self.send(416, b"", {"Content-Range": f"bytes */{len(content)}"})
            return
        headers["Content-Range"] = f"bytes {start}-{end}/{len(content)}"
        self.send(206, content[start : end + 1], headers)

    def answer_create(self) -> None:
        asked = json.loads(self.body)
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self.send(401, {"error": "Invalid username or password."})
            return
        kind, name = f"{asked.get('type') or 'model'}s", f"{asked['organization'] or 'me'}/{asked['name']}"
        status = 200
        if (kind, name) in self.server.repositories:
            status = 409
        else:
            is_private = asked.get("visibility") == "private" or bool(asked.get("private"))
            self.server.create(kind, name, is_private)
        prefix = "" if kind == "models" else f"{kind}/"
        self.send(status, {"url": f"{self.server.url}/{prefix}{name}", "name": name})

    def answer_validate(self) -> None:
        errors, warnings = problems_of_card(json.loads(self.body)["content"])
        answer = {
            "errors": [{"message": each} for each in errors], "warnings": [{"message": each} for each in warnings],
        }  # fmt: skip
        self.send(400 if errors else 200, answer)

    def answer_whoami(self) -> None:
        self.send(200, {"type": "user", "name": "me", "fullname": "me", "orgs": [], "auth": {}})

    def answer_harnesses(self) -> None:
        self.send(200, {"standardEnvVars": [], "harnesses": {}})  # `hf` asks at its start by whom it was called

    def answer_info(self, repository: Repository, commit: str, revision: str) -> None:
        files = repository.commits[commit]
        described = {
            "_id": "0", "id": repository.name, "sha": commit, "private": repository.private, "disabled": False,
            "gated": False, "downloads": 0, "likes": 0, "tags": [], "lastModified": DATE, "createdAt": DATE,
            "siblings": [{"rfilename": path} for path in sorted(files)],
        }  # fmt: skip
        self.send(200, described)

    def answer_refs(self, repository: Repository) -> None:
        def listed(references: dict[str, str], kind: str) -> list[dict]:
            return [
                {"name": name, "ref": f"refs/{kind}/{name}", "targetCommit": oid} for name, oid in references.items()
            ]

        answer = {"branches": listed(repository.branches, "heads"), "tags": listed(repository.tags, "tags")}
        self.send(200, {**answer, "converts": []})

    def answer_tree(self, repository: Repository, commit: str, revision: str, path: str | None) -> None:
        prefix = f"{urllib.parse.unquote(path).strip('/')}/" if path else ""
        is_recursive = self.query.get("recursive", ["false"])[0].lower() in ("true", "1")
        found = {}
        for name, content in sorted(repository.commits[commit].items()):
            if not name.startswith(prefix):
                continue
            parts = name[len(prefix) :].split("/")
            for depth in range(1, len(parts)):
                folder = prefix + "/".join(parts[:depth])
                if depth == 1 or is_recursive:
                    found.setdefault(folder, folder_entry(folder))
            if len(parts) == 1 or is_recursive:
                found[name] = entry(name, content)
        if path and not found:
            self.send(404, {"error": "not found"}, {"X-Error-Code": "EntryNotFound"})
            return
        self.send(200, list(found.values()))

    def answer_paths_info(self, repository: Repository, commit: str, revision: str) -> None:
        files, answer = repository.commits[commit], []
        if self.headers.get("Content-Type", "").startswith("application/json"):
            paths = json.loads(self.body)["paths"]
        else:
            paths = urllib.parse.parse_qs(self.body.decode())["paths"]
        for path in paths:
            if path in files:
                answer.append(entry(path, files[path]))
            elif any(name.startswith(f"{path}/") for name in files):
                answer.append(folder_entry(path))
        self.send(200, answer)

    def answer_preupload(self, repository: Repository, commit: str, revision: str) -> None:
        asked = json.loads(self.body)["files"]
        answer = [
            {
                "path": each["path"], "shouldIgnore": False,
                "uploadMode": "lfs" if is_large(each["path"]) else "regular",
            }
            for each in asked
        ]  # fmt: skip
        self.send(200, {"files": answer})

    def answer_large_files(self, repository: Repository) -> None:
        objects = []
        for asked in json.loads(self.body)["objects"]:
            if asked["oid"] not in self.server.blobs:
                href = f"{self.server.url}/large/{asked['oid']}"
                asked = {**asked, "actions": {"upload": {"href": href, "header": {}}}}
            objects.append(asked)
        self.send(200, {"transfer": "basic", "objects": objects})

    def answer_upload(self, sha256: str) -> None:
        if hashlib.sha256(self.body).hexdigest() != sha256:
            self.send(400, {"error": "content and identifier differ"})
            return
        self.server.blobs[sha256] = self.body
        self.send(200, b"")

    def answer_commit(self, repository: Repository, commit: str, revision: str) -> None:
        if revision not in repository.branches:
            self.send(400, {"error": f"{revision} is no branch"})
            return
        files, title = dict(repository.commits[commit]), ""
        for line in self.body.splitlines():
            key, value = (json.loads(line)[each] for each in ("key", "value"))
            if key == "header":
                title = value["summary"]
            elif key == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif key == "lfsFile":
                if value["oid"] not in self.server.blobs:
                    self.send(400, {"error": f"{value['path']}: its content was not uploaded"})
                    return
                files[value["path"]] = self.server.blobs[value["oid"]]
            elif key == "deletedFile":
                del files[value["path"]]
            else:
                self.server.unknown.append(f"commit: {key}")
        oid = repository.commit(files, title, revision)
        self.send(
            200, {"success": True, "commitOid": oid, "commitUrl": f"{self.server.url}/{repository.name}/commit/{oid}"}
        )

    def answer_tag(self, repository: Repository, commit: str, revision: str) -> None:
        self.add_reference(repository.tags, json.loads(self.body)["tag"], commit)

    def answer_branch(self, repository: Repository, branch: str) -> None:
        self.add_reference(repository.branches, urllib.parse.unquote(branch), repository.branches["main"])

    def add_reference(self, references: dict[str, str], name: str, commit: str) -> None:
        if name in references:
            self.send(409, {"error": f"Reference {name} already exists"})
            return
        references[name] = commit
        self.send(200, {})

    def answer_resolve(self, repository: Repository, commit: str, revision: str, path: str) -> None:
        path = urllib.parse.unquote(path)
        headers = {"X-Repo-Commit": commit}
        content = repository.commits[commit].get(path)
        if content is None:
            self.send(404, b"", {**headers, "X-Error-Code": "EntryNotFound"})
            return
        # The Hub sends its clients to another host for large files; here they are all in one place.
        if is_large(path):
            sha256 = hashlib.sha256(content).hexdigest()
            headers |= {"X-Linked-Etag": f'"{sha256}"', "X-Linked-Size": str(len(content))}
        self.send_file(content, {**headers, "ETag": f'"{blob_id(content)}"'})
