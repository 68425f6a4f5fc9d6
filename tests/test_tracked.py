"""Copies for tests: what recipes that ran in the checkout have left there stays out."""

import subprocess

import pytest
from interpreter import REPOSITORY
from tracked import copy_tracked, tracked_files

KEPT = ("egs/an4/asr1/run.sh", "egs/an4/asr1/conf/train.yaml", "egs/common/asr.sh")
SCHEME = "package/scheme/naive.yaml"


@pytest.fixture(params=["checkout", "archive"])
def used(request, tmp_path):
    """A repository in which a recipe has run, with git and without."""
    root, template = tmp_path / "used", tmp_path / "espnet/egs2/TEMPLATE/asr1"
    (template / "utils").mkdir(parents=True)
    (template / "asr.sh").write_text("")
    for name in (*KEPT, SCHEME):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    (root / "conf").mkdir()
    (root / "conf/scheme").symlink_to("../package/scheme")
    recipe = root / "egs/an4/asr1"
    if request.param == "checkout":
        for command in (["init", "-q"], ["add", "."]):
            done = subprocess.run(["git", *command], cwd=root, capture_output=True)
            if done.returncode:
                pytest.skip("no git")
    for name in ("asr.sh", "utils"):
        (recipe / name).symlink_to(template / name)
    for name in ("exp/asr_fp32/train.log", "data/train/text", "conf/queue.conf"):
        (recipe / name).parent.mkdir(parents=True, exist_ok=True)
        (recipe / name).write_text("")
    return root


def test_what_a_recipe_has_left_is_not_copied(used, tmp_path):
    copy = copy_tracked(tmp_path / "copy", "egs", "conf", repository=used)
    files = {str(path.relative_to(copy)) for path in copy.rglob("*") if not path.is_dir()}
    assert files == {*KEPT, "conf/scheme/naive.yaml"}


def test_recipes_of_this_repository_are_copied_as_a_whole():
    found = {str(path) for path in tracked_files("egs")}
    for name in ("egs/common/asr.sh", "egs/swbd/asr1/run.sh", "egs/an4/esp3/dataset/dataset.py"):
        assert name in found
    pretrained = REPOSITORY / "egs/asterisk_en/asr1/pretrained"
    assert {str(p.relative_to(REPOSITORY)) for p in pretrained.iterdir()} <= found
    assert not [name for name in found if name.endswith("/utils") or "/exp/" in name]
