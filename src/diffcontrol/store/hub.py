"""Stores in repositories of the Hugging Face hub, written `hf://owner/name`."""

from pathlib import Path

from diffcontrol.refused import Refused

PREFIX = "hf://"
READ = ("*.safetensors", "*.json", "*.jsonl", "*.yaml", "*.md")  # none of them can run code


def on_hub(place: str | Path) -> bool:
    return str(place).startswith(PREFIX)


def download(place: str) -> Path:
    """The folder of a repository's files on this machine; what was downloaded before is not downloaded again.

    Raises:
        Refused: there is no such repository, or no network, or the place is not written hf://owner/name.
    """
    from huggingface_hub import snapshot_download

    name = _name(place)
    try:
        return Path(snapshot_download(name, allow_patterns=list(READ)))
    except Exception as error:  # what it raises depends on network and version
        raise Refused(
            f"{place} could not be read from the Hugging Face hub ({type(error).__name__}); where there is no network, "
            "copy the repository's files to a folder and name that folder"
        ) from error


def upload(folder: Path, place: str) -> None:
    """Adds the entries of a store to a repository, which is made, as a private one, where there is none.

    Raises:
        Refused: the hub could not be reached or does not let this user write there, or the place is not written hf://owner/name.
    """
    from huggingface_hub import HfApi

    name = _name(place)
    try:
        HfApi().create_repo(name, private=True, exist_ok=True)
        HfApi().upload_folder(repo_id=name, folder_path=folder, ignore_patterns=[".*", ".*/**"])
    except Exception as error:  # what it raises depends on network and version
        raise Refused(
            f"{place} could not be written to ({type(error).__name__}); a network is needed, and `hf auth login` once"
        ) from error


def _name(place: str) -> str:
    name = place.removeprefix(PREFIX).strip("/")
    if name.count("/") != 1:
        raise Refused(f"{place} does not name a repository of the Hugging Face hub; write hf://owner/name")
    return name
