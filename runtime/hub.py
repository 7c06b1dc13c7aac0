"""Bundles on the Hugging Face Hub, by name: ``hf:OWNER/NAME`` or ``hf:OWNER/NAME@REVISION``."""

from __future__ import annotations

from pathlib import Path

from .errors import BundleError, RilletError, UsageError, brief

__all__ = ["HUB_PREFIX", "fetch_bundle", "in_hub_cache", "on_hub"]

HUB_PREFIX = "hf:"

_FILES = ("*.json", "*.onnx", "*.safetensors", "README.md")
"""What a bundle consists of; a repository may hold more."""


def on_hub(path: str | Path) -> bool:
    """Whether a bundle is given by its name on the hub."""
    return str(path).startswith(HUB_PREFIX)


def fetch_bundle(name: str | Path, revision: str | None = None) -> Path:
    """Download what is missing of a bundle into the hub's cache.

    Without a network, what the cache holds is used.

    Args:
        name: ``hf:OWNER/NAME``, or ``hf:OWNER/NAME@REVISION``.
        revision: A branch, a tag or a commit.

    Returns:
        The bundle's folder in the cache.

    Raises:
        UsageError: The revision is given twice.
        RilletError: huggingface_hub is not installed.
        BundleError: The hub has no such bundle, or cannot be reached.
    """
    repository, _, named = str(name).replace("\\", "/").removeprefix(HUB_PREFIX).partition("@")
    if named and revision is not None and named != revision:
        raise UsageError(
            f"{name} names the revision {named}, and revision is {revision!r}; give one of them"
        )
    try:
        import huggingface_hub
    except ModuleNotFoundError as error:
        raise RilletError(
            f"{name} needs huggingface_hub, which is not installed; install it with: "
            "pip install huggingface_hub"
        ) from error
    try:
        folder = huggingface_hub.snapshot_download(
            repository,
            revision=named or revision,
            allow_patterns=list(_FILES),
            ignore_patterns=["*/*"],
            library_name="rillet",
        )
    except (OSError, ValueError, huggingface_hub.errors.HfHubHTTPError) as error:
        raise BundleError(
            f"{name} cannot be fetched from the Hugging Face Hub ({brief(error)}); check the name, "
            "the revision and the network, or give a folder"
        ) from error
    return Path(folder)


def in_hub_cache(link: Path) -> bool:
    """Whether a file is one of the links that the hub's cache is made of.

    The cache keeps contents in ``blobs``, and a folder of links to them for each revision. Such a
    link leads nowhere else, whoever made it.
    """
    snapshots = link.parent.parent
    return snapshots.name == "snapshots" and link.resolve().parent == snapshots.parent / "blobs"
