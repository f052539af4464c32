"""Control path: where the control socket of a server is when nobody said so.

Owns      the folders that are looked at, in their order, and what makes one fit: the same for the server that
          opens the socket there and for the command that looks for it.
Promises  a folder that we make is 0700; one that others could make in our place is used only when it is a directory,
          no link, of this user, and closed to others.
Refuses   to repair a folder: who finds a foreign one in its place should know.
Why       everybody may write in the temporary folder: who is first there with our name would be told our commands.
"""

import os
import stat
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

from ..errors import OperatorError

#: what the setting `control` says when the path is to be found here
AUTO = "auto"
#: a folder of ours in $XDG_RUNTIME_DIR, and with the number of the user in the temporary one
FOLDER = "moorage"
_ADVICE = "set `control` to a path of your own, or to off"


def control_paths(name: str, environ: Mapping[str, str] | None = None) -> list[Path]:
    """Where the socket of the server of this name can be, the first choice first."""
    return [folder / f"{quote(name, safe=' ')}.sock" for folder in _folders(os.environ if environ is None else environ)]


def prepare_control_path(name: str, environ: Mapping[str, str] | None = None) -> Path:
    """Where the socket of this server is to be; its folder is there and ours, else `OperatorError`."""
    path, environ = control_paths(name, environ)[0], os.environ if environ is None else environ
    if _given(environ, "RUNTIME_DIRECTORY") is None:  # that one the service manager has made
        try:
            _prepare(path.parent)
        except OSError as error:
            raise OperatorError(f"the folder {path.parent} cannot be made ({error.strerror}); {_ADVICE}") from error
    return path


def check_folder(folder: Path) -> None:
    """`OperatorError` unless this folder is a directory of this user and closed to others."""
    found = folder.lstat()  # the folder above it lets nobody put another one in its place
    if not stat.S_ISDIR(found.st_mode):
        flaw = "is no directory"
    elif found.st_uid != os.geteuid():
        flaw = f"belongs to the user {found.st_uid}"
    elif stat.S_IMODE(found.st_mode) & 0o077:
        flaw = f"is open to others (mode {stat.S_IMODE(found.st_mode):04o})"
    else:
        return
    raise OperatorError(f"the folder {folder} {flaw}, so no control socket can be there; {_ADVICE}")


def _prepare(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError:
        check_folder(folder)


def _folders(environ: Mapping[str, str]) -> list[Path]:
    import tempfile  # here, since it draws in much, and a command line that asks nobody does without

    folders = []
    if runtime := _given(environ, "RUNTIME_DIRECTORY"):  # several, with colons between them (systemd.exec(5))
        folders.append(Path(runtime.split(":")[0]))
    if (xdg := _given(environ, "XDG_RUNTIME_DIR")) and _is_own(Path(xdg)):
        folders.append(Path(xdg, FOLDER))
    try:
        folders.append(Path(tempfile.gettempdir(), f"{FOLDER}-{os.geteuid()}"))
    except OSError as error:  # it looks for one that can be written in
        if not folders:
            raise OperatorError(f"there is no folder for a control socket ({error.strerror}); {_ADVICE}") from error
    return folders


def _given(environ: Mapping[str, str], variable: str) -> str | None:
    """A folder that the environment names; a relative one is no place to find again."""
    text = environ.get(variable, "")
    return text if text.startswith("/") else None


def _is_own(folder: Path) -> bool:
    """Not after `sudo` or `su`, which leave the variable of the other user."""
    try:
        return folder.is_dir() and folder.stat().st_uid == os.geteuid()
    except OSError:
        return False
