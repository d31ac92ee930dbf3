"""The folder that builders get."""

from __future__ import annotations

from pathlib import Path

from launcher.images.builders import EPOCH_S
from launcher.images.context import WHEELS, build_context, settle
from launcher.stages.code import ROOT
from launcher.stages.image_files import image_files


def facts(folder: Path) -> dict[str, tuple[int, float]]:
    return {
        path.relative_to(folder).as_posix(): (path.stat().st_mode & 0o777, path.stat().st_mtime)
        for path in folder.rglob("*")
    }


def test_holds_what_goes_in_and_is_always_the_same() -> None:
    found = []
    for _ in range(2):
        with build_context(ROOT) as folder:
            settle(folder)
            found.append(facts(folder))
            files = [path for path in folder.rglob("*") if path.is_file()]
            assert sorted(path.relative_to(folder).as_posix() for path in files) == image_files(ROOT)
            assert sum(path.stat().st_size for path in files) < 5_000_000
            assert (folder / WHEELS).is_dir()
    assert found[0] == found[1] and not folder.exists()
    assert {time for _, time in found[0].values()} == {EPOCH_S}
    assert found[0]["images/install"][0] == 0o755 and found[0]["images/Dockerfile"][0] == 0o644
