"""Network drives: the files and folders of an SMB 2 or 3 share (Windows file servers, Samba, storage boxes).

The library is smbprotocol in worker threads. Folders are listed in the order of their names, each as one page, so that an
interrupted listing goes on behind the last folder; each folder at the top is a partition. A folder that cannot be listed is a
failure that keeps its documents, a lost connection is made anew and the folder listed again.

With document-level security, a document carries who may read it; a list that cannot be read lets nobody in.
"""

from __future__ import annotations

import socket
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from typing import Any, ClassVar, Final

import attrs
import smbclient
import trio
from smbclient._io import SMBDirectoryIO, SMBFileIO
from smbprotocol.exceptions import SMBException
from smbprotocol.file_info import InfoType
from smbprotocol.open import DirectoryAccessMask, FilePipePrinterAccessMask, SMB2QueryInfoRequest, SMB2QueryInfoResponse

from ..protocol.access import NOBODY
from ..protocol.configuration import greater_than, less_than, setting
from ..runtime import blocking, random
from .errors import (
    ConfigurationError,
    CredentialsError,
    NotFound,
    PermissionDenied,
    SourceError,
    Transient,
    UnexpectedAnswer,
)
from .glob_pattern import InvalidPattern, compile_pattern
from .network_drive_rights import directory_of, read_descriptor, read_people, readers
from .permissions import Directory
from .source import (
    JSON,
    AdvancedRulesProblem,
    Checkpoint,
    ContentRef,
    Document,
    Failure,
    Features,
    Identity,
    Listing,
    Partition,
    Source,
)
from .waiting import tell_wait

ATTEMPTS: Final = 3
CONNECT_S: Final = 30
CLOSE_S: Final = 2.0
READ_SIZE_BYTES: Final = 262_144
PAGE_ENTRIES: Final = 500
_THREADS: Final = 8
_DISCRETIONARY_LIST: Final = 0x4
_DESCRIPTOR_BYTES: Final = 65_536
_FOLDER: Final = 0x10
_LINK: Final = 0x400
_WILD: Final = "*?[{!^"
_AT_TOP: Final = "."


@attrs.frozen
class NetworkDriveConfig:
    """Which folder of which share."""

    username: str = setting("Username", default="", tooltip="Also DOMAIN\\user or user@domain.")
    password: str = setting("Password", default="", sensitive=True)
    server_ip: str = setting("SMB IP", default="", tooltip="Address or name of the server.")
    server_port: int = setting(
        "SMB port", display="numeric", tooltip="Usually 445.", validations=[greater_than(0), less_than(65536)]
    )
    drive_path: str = setting("SMB path", default="", tooltip="Share and folder, such as Public/reports.")
    use_document_level_security: bool = setting("Enable document level security", default=False)
    drive_type: str = setting(
        "Drive type",
        default="windows",
        display="dropdown",
        options={"windows": "Windows", "linux": "Linux"},
        depends_on={"use_document_level_security": True},
        advanced=True,
    )
    identity_mappings: str = setting(
        "Path of CSV file with users and groups SIDs",
        default="",
        required=False,
        depends_on={"use_document_level_security": True, "drive_type": "linux"},
        advanced=True,
        tooltip="On the machine that runs Callboard; lines of user;SID;group SIDs.",
    )
    use_text_extraction_service: bool = setting("Use text extraction service", default=False, advanced=True)

    def complaints(self) -> Iterator[tuple[str, str]]:
        """Say what is wrong with the path."""
        if self.drive_path.startswith(("/", "\\")):
            yield "drive_path", "must not start with a slash; write share/folder"
        elif not self.drive_path.strip("/ "):
            yield "drive_path", "must name a share, such as Public or Public/reports"
        if ".." in self.drive_path.replace("\\", "/").split("/"):
            yield "drive_path", "must not lead upwards with '..'"

    @property
    def names(self) -> list[str]:
        """The share, and the folders below it."""
        return [name for name in self.drive_path.replace("\\", "/").split("/") if name]


@attrs.frozen
class _Entry:
    """One file or folder, as a listing gives it."""

    name: str
    is_folder: bool
    number: int
    size_bytes: int
    created: datetime
    changed: datetime


class NetworkDrive(Source[NetworkDriveConfig]):
    """The files and folders of an SMB share."""

    service_type: ClassVar[str] = "network_drive"
    name: ClassVar[str] = "Network Drive"
    Config = NetworkDriveConfig
    features = Features(advanced_rules=True, incremental="skip_unchanged", document_level_security=True, resumable=True)

    def __init__(self, config: NetworkDriveConfig, context: Any = None) -> None:
        super().__init__(config, context)
        self._connections: dict[str, Any] = {}
        self._limiter = trio.CapacityLimiter(_THREADS)
        self._connecting = trio.Lock()
        self._has_session = False
        self._directory: Directory | None = None
        self._reading_people = trio.Lock()

    @asynccontextmanager
    async def session(self) -> AsyncIterator[None]:
        try:
            yield
        finally:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + CLOSE_S):
                await blocking(self._disconnect)

    async def ping(self) -> None:
        await self._call(self._stat, self._unc(self.config.names[:1]))

    async def validate(self) -> None:
        """Make sure that the folder is there and may be listed, and that people are known where rights are wanted."""
        await self._listed(self.config.names)
        if self.config.use_document_level_security:
            await self._people()

    async def validate_rules(self, rules: JSON) -> Sequence[AdvancedRulesProblem]:
        return [AdvancedRulesProblem(text) for text in _rule_problems(rules)]

    async def partitions(self, rules: JSON = None) -> AsyncGenerator[Partition, None]:
        if rules:
            for pattern in dict.fromkeys(rule["pattern"] for rule in rules):
                yield Partition(f"rule/{pattern}", {"pattern": pattern}, title=pattern)
            return
        root = self.config.names
        yield Partition(_AT_TOP, {"below": None}, title=f"directly in {'/'.join(root)}")
        for entry in await self._listed(root):
            if entry.is_folder:
                yield Partition(f"{entry.name}/", {"below": entry.name}, title=entry.name)

    async def documents(self, partition: Partition, checkpoint: JSON = None) -> Listing:
        pattern = partition.data.get("pattern")
        below = partition.data.get("below")
        root = self.config.names
        matches: Callable[[Sequence[str]], bool] = _everything
        if pattern is not None:
            root, matches = _start_of(pattern), compile_pattern(pattern)
        elif below is not None:
            root = [*root, below]
        after: list[str] = list(checkpoint or ())
        # Folders that are yet to be listed, the next one last; no more than those beside the way down.
        waiting: list[list[str]] = [root]
        while waiting:
            folder = waiting.pop()
            try:
                entries = await self._listed(folder)
            except (NotFound, PermissionDenied) as error:
                if folder == root:
                    raise
                if isinstance(error, PermissionDenied):
                    yield Failure("container", "/".join(folder), str(error))
                continue
            if pattern is not None or below is not None:
                below_here = [[*folder, entry.name] for entry in entries if entry.is_folder]
                # Behind the checkpoint in the order of names, or on the way to it.
                waiting += [path for path in reversed(below_here) if path > after or after[: len(path)] == path]
            if folder <= after:
                continue
            for start in range(0, len(entries), PAGE_ENTRIES):
                page = entries[start : start + PAGE_ENTRIES]
                yield [await self._document(folder, entry) for entry in page if matches([*folder, entry.name])]
            yield Checkpoint(folder)

    async def _document(self, folder: Sequence[str], entry: _Entry) -> Document | Failure:
        path = self._unc([*folder, entry.name])
        if not entry.number:
            cause = "The server gives files no numbers, of which the ids of documents are made."
            return Failure("item", path, cause)
        changed = _time(entry.changed)
        fields: dict[str, JSON] = {
            "path": path,
            "title": entry.name,
            "type": "folder" if entry.is_folder else "file",
            "size": entry.size_bytes,
            "created_at": _time(entry.created),
        }
        access: list[str] | None = None
        if self.config.use_document_level_security and self.context.document_level_security:
            access = await self._readers(path, is_folder=entry.is_folder)
        content = None
        if not entry.is_folder:
            content = ContentRef(
                name=entry.name,
                data={"path": path},
                size_bytes=entry.size_bytes,
                version=f"{changed}-{entry.size_bytes}-{entry.number}",
            )
        return Document(str(entry.number), fields, timestamp=changed, access=access, content=content)

    async def _readers(self, path: str, *, is_folder: bool) -> list[str]:
        try:
            raw = await self._call(self._descriptor, path, is_folder)
            return readers(read_descriptor(raw), await self._known_people())
        except (NotFound, PermissionDenied, UnexpectedAnswer) as error:
            self.log.warning("source.rights_unknown", path=path, why=str(error))
            return [NOBODY]

    async def identities(self) -> AsyncGenerator[Identity | Failure | Sequence[Identity | Failure], None]:
        yield await self._people()

    async def _known_people(self) -> Directory:
        """Who is in which group, for lists that deny something; read once. Empty where the people are not known."""
        async with self._reading_people:
            if self._directory is None:
                knows = self.config.drive_type == "linux"
                self._directory = directory_of(await self._people() if knows else ())
        return self._directory

    async def _people(self) -> list[Identity]:
        if self.config.drive_type != "linux":
            raise ConfigurationError(
                "The people and groups of a Windows server cannot be asked for by this version. Choose the drive type Linux and "
                "name a CSV file of users and SIDs; the files of a Windows server carry the same SIDs."
            )
        return await blocking(read_people, self.config.identity_mappings)

    def fetch(self, content: ContentRef) -> Any:
        return self._opened(str(content.data["path"]))

    @asynccontextmanager
    async def _opened(self, path: str) -> AsyncIterator[AsyncIterator[bytes]]:
        file = await self._call(self._open_file, path)
        chunks = self._chunks(path, file)
        try:
            yield chunks
        finally:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + CLOSE_S):
                await chunks.aclose()
                await blocking(_close_quietly, file)

    async def _chunks(self, path: str, file: Any) -> AsyncGenerator[bytes, None]:
        while True:
            try:
                chunk = await blocking(file.read, READ_SIZE_BYTES, limiter=self._limiter)
            except (OSError, SMBException, ValueError) as error:
                raise self._translated(error, path) from error
            if not chunk:
                return
            yield bytes(chunk)

    async def _listed(self, names: Sequence[str]) -> list[_Entry]:
        """List a folder in the order of names. Raises `NotFound`, `PermissionDenied` and the like for the folder."""
        entries: list[_Entry] = await self._call(self._scan, self._unc(names))
        return entries

    async def _call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call the library in a thread with our connections; a lost one is made anew."""
        attempt = 0
        while True:
            try:
                await self._connect()
                return await blocking(function, *arguments, limiter=self._limiter)
            except (OSError, SMBException, ValueError) as error:
                told = self._translated(error, str(arguments[0]))
                attempt += 1
                if not isinstance(told, Transient) or attempt >= ATTEMPTS:
                    raise told from error
                self.log.info("source.retry", attempt=attempt, why=str(told))
                self._has_session = False
                pause_s = random().uniform(0.5, 1.0) * 2.0**attempt
                tell_wait(self.name, told, wait_s=pause_s, attempt=attempt)
                await trio.sleep(pause_s)

    async def _connect(self) -> None:
        async with self._connecting:
            if not self._has_session:
                await blocking(self._register, limiter=self._limiter)
                self._has_session = True

    def _register(self) -> None:
        config = self.config
        self._disconnect()
        smbclient.register_session(
            config.server_ip,
            username=config.username,
            password=config.password,
            port=config.server_port,
            connection_timeout=CONNECT_S,
            connection_cache=self._connections,
        )

    def _disconnect(self) -> None:
        # Whatever is wrong with the old connections, they are of no use any more.
        with suppress(OSError, SMBException, ValueError):
            smbclient.reset_connection_cache(fail_on_error=False, connection_cache=self._connections)
        self._connections.clear()

    def _stat(self, path: str) -> Any:
        return smbclient.stat(path, port=self.config.server_port, connection_cache=self._connections)

    def _scan(self, path: str) -> list[_Entry]:
        found = []
        for one in smbclient.scandir(path, port=self.config.server_port, connection_cache=self._connections):
            about = one.smb_info
            # A link may lead round in circles, or out of the share.
            is_folder = bool(about.file_attributes & _FOLDER) and not about.file_attributes & _LINK
            entry = _Entry(
                one.name, is_folder, about.file_id, about.end_of_file, about.creation_time, about.change_time
            )
            found.append(entry)
        return sorted(found, key=lambda entry: entry.name)

    def _open_file(self, path: str) -> Any:
        return smbclient.open_file(
            path,
            mode="rb",
            buffering=0,
            share_access="rwd",
            port=self.config.server_port,
            connection_cache=self._connections,
        )

    def _descriptor(self, path: str, is_folder: bool) -> bytes:
        kind = SMBDirectoryIO if is_folder else SMBFileIO
        control = DirectoryAccessMask.READ_CONTROL if is_folder else FilePipePrinterAccessMask.READ_CONTROL
        with kind(
            path,
            mode="rb" if not is_folder else "r",
            share_access="rwd",
            desired_access=control,
            port=self.config.server_port,
            connection_cache=self._connections,
        ) as opened:
            handle = opened.fd
            ask = SMB2QueryInfoRequest()
            ask["info_type"] = InfoType.SMB2_0_INFO_SECURITY
            ask["output_buffer_length"] = _DESCRIPTOR_BYTES
            ask["additional_information"] = _DISCRETIONARY_LIST
            ask["file_id"] = handle.file_id
            session, tree = handle.tree_connect.session, handle.tree_connect
            request = handle.connection.send(ask, sid=session.session_id, tid=tree.tree_connect_id)
            answer = SMB2QueryInfoResponse()
            answer.unpack(handle.connection.receive(request)["data"].get_value())
            return bytes(answer["buffer"].get_value())

    def _unc(self, names: Sequence[str]) -> str:
        # As existing indices have it: the configured part with slashes, what is below it with backslashes.
        root = self.config.names
        if list(names[: len(root)]) == root:
            start, rest = "/".join(root), names[len(root) :]
        else:
            start, rest = names[0], names[1:]
        return "\\".join([f"\\\\{self.config.server_ip}/{start}", *rest])

    def _translated(self, error: Exception, path: str) -> SourceError:
        config = self.config
        where = f"The server {config.server_ip}:{config.server_port}"
        number = getattr(error, "ntstatus", None) or getattr(error, "status", 0)
        if number in _REFUSED:
            return CredentialsError(f"{where} refuses the user {config.username!r}: {_REFUSED[number]}.")
        if number in (0xC0000022, 0xC0000061, 0xC0000043):
            return PermissionDenied(f"{path} may not be read by {config.username!r}. Grant it read access.")
        if number in (0xC0000034, 0xC000003A, 0xC00000CC, 0xC0000103, 0xC0000225):
            return NotFound(f"{path} is not there (any more). Check drive_path: share/folder.")
        if isinstance(error, ValueError) and not isinstance(error.__cause__, OSError) and "connect" not in str(error):
            return UnexpectedAnswer(f"{where}: {_short(error)}.")
        if isinstance(error, SMBException | OSError | socket.timeout | ValueError):
            return Transient(f"{where}: {_short(error)}.")
        return UnexpectedAnswer(f"{where}: {_short(error)}.")


_REFUSED: Final = {
    0xC000006D: "the user name or password is wrong",
    0xC000006E: "the account is restricted",
    0xC000006F: "it is outside of the account's hours",
    0xC0000070: "the account may not log in from this machine",
    0xC0000071: "the password has expired",
    0xC0000072: "the account is disabled",
    0xC0000224: "the password must be changed first",
    0xC0000234: "the account is locked",
    0xC000005E: "there is no server that could log it in",
}


def _short(error: Exception) -> str:
    return str(error).strip().partition("\n")[0].rstrip(".") or type(error).__name__


def _time(when: datetime) -> str:
    return when.replace(tzinfo=None).isoformat()


def _everything(_names: Sequence[str]) -> bool:
    return True


def _close_quietly(file: Any) -> None:
    with suppress(OSError, SMBException, ValueError):
        file.close()


def _start_of(pattern: str) -> list[str]:
    """The folders of a pattern before its first wildcard."""
    wild = next((place for place, letter in enumerate(pattern) if letter in _WILD), len(pattern))
    return [name for name in pattern[:wild].rpartition("/")[0].split("/") if name]


def _rule_problems(rules: JSON) -> Iterator[str]:
    if not rules:
        return
    if not isinstance(rules, list):
        yield "Advanced rules are a list of objects with a pattern."
        return
    for place, rule in enumerate(rules, start=1):
        if not isinstance(rule, dict) or set(rule) != {"pattern"} or not isinstance(rule["pattern"], str):
            yield f"Rule {place} is not an object with one text, its pattern."
            continue
        pattern = rule["pattern"]
        try:
            compile_pattern(pattern)
        except InvalidPattern as error:
            yield f"Rule {place}: {error}."
            continue
        if not _start_of(pattern):
            yield f"Rule {place}: the pattern {pattern!r} must begin with the name of the share, such as Public/**/*.pdf."
