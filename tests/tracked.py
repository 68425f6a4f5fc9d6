"""Copies of parts of the repository without what runs have left in them."""

import shutil
import subprocess
from fnmatch import fnmatch
from pathlib import Path

from interpreter import REPOSITORY

# What a checkout holds that git passes over, for where there is no git; as .gitignore has it.
GENERATED = (
    *(
        "exp",
        "data",
        "dump",
        "downloads",
        "logs",
        "__pycache__",
        ".espnet",
        ".venv*",
        "build",
        "dist",
    ),
    *("*.egg-info", "*.so", "*.part", ".*_cache", ".git", "asr.sh.bak"),
    *("scripts", "pyscripts", "utils", "steps", "queue.conf", "slurm.conf", "pbs.conf"),
)


def tracked_files(folder, repository=REPOSITORY):
    """Return the files of a folder that belong to the repository, relative to it.

    Args:
        folder: relative to the repository.
        repository: its root: a checkout, or an unpacked source archive, of which all is taken that no
            recipe, test or build has written.
    """
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--", str(folder)], cwd=repository, capture_output=True, text=True
    )
    paths = [Path(name) for name in listed.stdout.split("\0") if name]
    if listed.returncode == 0 and paths:
        # One that was removed is tracked until that is committed.
        return [path for path in paths if (repository / path).exists()]
    found = []
    for path in sorted((repository / folder).rglob("*")):
        relative = path.relative_to(repository)
        generated = any(fnmatch(part, name) for part in relative.parts for name in GENERATED)
        if not generated and (path.is_file() or path.is_symlink()) and _is_inside(path, repository):
            found.append(relative)
    return found


def _is_inside(path, repository):
    """Whether a file, with its links followed, is the repository's: recipes' asr.sh is not."""
    return path.resolve().is_relative_to(repository.resolve())


def copy_tracked(target, *folders, repository=REPOSITORY):
    """Copy folders of the repository to the same places under ``target``, and return that.

    Links are followed.
    """
    for folder in folders:
        for path in tracked_files(folder, repository):
            source = repository / path
            (target / path).parent.mkdir(parents=True, exist_ok=True)
            # conf/scheme is a link to the package's.
            copy = shutil.copytree if source.is_dir() else shutil.copy2
            copy(source, target / path)
    return target
