"""Files on the Hugging Face hub, hf://OWNER/REPO/FILE: the copy in the hub's cache, fetched if it is not there."""

import re
from collections.abc import Callable
from contextlib import suppress

HUB = "hf://"
MOST = 64 << 30  # bytes: the largest released model has 2.1 billion weights, twice (averaged and not) in float32 17 GB
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}")


def parsed(source: str, default: str | None = None) -> tuple[str, str]:
    """hf://OWNER/REPO/FILE -> ("OWNER/REPO", "FILE"); FILE may be left out where there is a `default`. ValueError."""
    owner, _, rest = source.removeprefix(HUB).partition("/")
    repository, _, file = rest.partition("/")
    file = file or default or ""
    named = all(_NAME.fullmatch(part) for part in (owner, repository))
    if not named or not file or any(part in ("", ".", "..") for part in file.split("/")) or "\\" in file:
        form = "hf://OWNER/REPO/FILE" if default is None else f"hf://OWNER/REPO, whose {default} is taken, or .../FILE"
        raise ValueError(f"{source} names no file on the hub; write {form}")
    return f"{owner}/{repository}", file


def fetched(source: str, default: str | None = None, say: Callable[[str], None] = lambda text: None) -> str:
    """The local path of what `source` names. What lies in the hub's cache is taken from there, and nothing is asked.

    ValueError: no such name, huggingface_hub is not installed, a file of more than `MOST` bytes or of unknown size.
    OSError: it cannot be fetched (no connection, no such repository or file, one that wants to be asked first).
    """
    repository, file = parsed(source, default)
    try:
        from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url
        from huggingface_hub.errors import LocalEntryNotFoundError
    except ImportError:
        raise ValueError(
            f"{source} needs huggingface_hub; install worldtrace[hub], or download the file and give its path"
        ) from None
    try:
        with suppress(LocalEntryNotFoundError):
            return str(hf_hub_download(repository, file, local_files_only=True))
        # Once, for 10 seconds: offline, a download would try again and again, and say so in many lines.
        size = getattr(get_hf_file_metadata(hf_hub_url(repository, file), timeout=10), "size", None)
        if size is not None and size <= MOST:
            say(f"{source}: fetches {file} of {repository}, {size / 1e9:.1f} GB, once")
            return str(hf_hub_download(repository, file))
    except Exception as error:  # the hub's, its HTTP client's and the system's have no common base, and some lines each
        raise OSError(_why(error, source, repository, file)) from None
    if size is None:  # whatever came would be written until the disk is full
        raise ValueError(
            f"{source}: the server does not say how large {file} is; download it yourself and give its path"
        )
    raise ValueError(f"{source} has {size / 1e9:.0f} GB, and at most {MOST / 1e9:.0f} GB are fetched")


def _why(error: Exception, source: str, repository: str, file: str) -> str:
    """What went wrong, in one sentence."""
    from huggingface_hub import errors

    page = f"https://huggingface.co/{repository}"
    if isinstance(error, errors.GatedRepoError):
        return (
            f"{source} is given to those who asked for it: ask for access at {page}, then log in with `hf auth login` "
            "(or set HF_TOKEN)"
        )
    if isinstance(error, errors.RepositoryNotFoundError):
        return f"{source}: there is no repository {page}, or it is private; look at the name, or run `hf auth login`"
    if isinstance(error, errors.EntryNotFoundError) and not isinstance(error, errors.LocalEntryNotFoundError):
        return f"{source}: {page} has no file {file}; look at its files, and write hf://{repository}/FILE"
    first = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return f"{source} could not be fetched ({first}); download the file on another machine and give its path"
