"""The Hugging Face hub: folders that go there, and files that come from there. Nothing that comes is run."""

from collections.abc import Sequence
from pathlib import Path

from huggingface_hub import HfApi, hf_hub_download, snapshot_download
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from hyperofa.errors import InputError

_FLAG = "--push_to_hub"
_OURS_ALONE = [".*", "*.lock", "*.partial"]  # marks and locks, which mean something on this machine only


def check_repository(repository: str | None) -> None:
    """See that a name can be one of the hub, before the work whose result is to go there.

    Args:
        repository: `USER/NAME`; `None` if nothing is to go anywhere.

    Raises:
        InputError: it cannot.
    """
    if repository is None:
        return
    try:
        validate_repo_id(repository)
    except HFValidationError as error:
        raise InputError(f"{_FLAG}: expected USER/NAME on the hub, found {repository!r}; {error}") from None


def push_folder(folder: str | Path, repository: str, *, card: str | None = None, message: str = "") -> str:
    """Upload a folder; the repository is made if it is not there, as a private one.

    Args:
        folder: what to upload, but for hidden files and locks.
        repository: `USER/NAME`.
        card: text of README.md, if the folder has none.
        message: of the commit.

    Returns:
        Where it is now.

    Raises:
        InputError: no access, no network, or no such user; the folder stays, and can be uploaded by hand.
    """
    check_repository(repository)
    api = HfApi(library_name="hyperofa")
    try:
        url = api.create_repo(repository, private=True, exist_ok=True)
        if card is not None:
            api.upload_file(path_or_fileobj=card.encode(), path_in_repo="README.md", repo_id=repository)
        api.upload_folder(
            repo_id=repository,
            folder_path=folder,
            commit_message=message or "Upload what hyperofa made",
            ignore_patterns=_OURS_ALONE,
        )
    except Exception as error:  # which kinds these are changes with the HTTP library beneath
        reason = " ".join(str(error).split())
        raise InputError(
            f"{_FLAG} {repository}: expected a repository that you may write to, found none ({reason}); {folder} is "
            f"whole: log in with `hf auth login`, then `hf upload {repository} {folder}`"
        ) from None
    return str(url)


def find_file(name: str, file: str) -> Path | None:
    """A file of a folder or a repository of the hub, from the cache where it is there.

    Args:
        name: folder or hub id.
        file: its path below that.

    Returns:
        Where it is now; `None` if it is not there, or the hub cannot be reached.
    """
    if Path(name).exists():
        path = Path(name, file)
        return path if path.is_file() else None
    try:
        return Path(hf_hub_download(name, file))
    except Exception:  # not there, no way there, no name of the hub: kinds that change with the HTTP library
        return None


def download(name: str, patterns: Sequence[str], flag: str) -> Path:
    """Files of a repository of the hub, in its cache.

    Args:
        name: folder, which is taken as it is, or hub id.
        patterns: of the files that are wanted; no others are brought here.
        flag: named in errors.

    Raises:
        InputError: neither a folder nor a repository that can be reached.
    """
    if Path(name).is_dir():
        return Path(name)
    try:
        return Path(snapshot_download(name, allow_patterns=list(patterns)))
    except Exception as error:  # likewise
        reason = " ".join(str(error).split())
        raise InputError(
            f"{flag} {name}: expected a folder or a repository of the hub, found neither ({reason})"
        ) from None
