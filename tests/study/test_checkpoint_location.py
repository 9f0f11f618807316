from __future__ import annotations

from pathlib import Path

import pytest

from afi_search.errors import UserError
from afi_search.study.checkpoint_location import check_url, location_of, new_location, size_of
from afi_search.study.folder import StudyError, StudyFile
from tests.search.studies import open_study, space_file


def asked(checkpoints: str | None) -> StudyFile:
    return StudyFile("one", "", "", space_file(), {}, checkpoints=check_url(checkpoints))


def test_a_folder_is_absolute_and_a_url_stays() -> None:
    assert check_url("shared") == str(Path("shared").absolute())
    assert check_url("file:///shared/") == "file:///shared"


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("sftp://me:secret@host/folder", "leave the password out"),
        ("sftp://me%3Asecret@host/folder", "leave the password out"),
        ("zip://a::ftp://me:secret@host/folder", "leave the password out"),
        ("s3://bucket/folder?access_key=secret", "leave the password out"),
        ("abfs://bucket/folder?sig=secret&se=1", "leave the password out"),
        ("memory://folder", "no place for checkpoints"),
        ("fil:///shared", "no file system 'fil'. Did you mean 'file'?"),
    ],
)
def test_a_place_that_cannot_be_is_told(url: str, said: str) -> None:
    with pytest.raises(UserError, match=said.replace("?", r"\?")) as error:
        check_url(url)
    assert "secret" not in str(error.value)


def test_studies_of_one_name_have_places_of_their_own() -> None:
    assert new_location("s3://bucket", "one") != new_location("s3://bucket", "one")


def test_the_same_url_leads_a_study_to_its_place_again(tmp_path: Path) -> None:
    url = (tmp_path / "shared").as_uri()
    (tmp_path / "study").mkdir()
    first = open_study(tmp_path / "study", asked(url))

    assert first.checkpoints.startswith(f"{url}/one-")
    assert open_study(tmp_path / "study", asked(url)).checkpoints == first.checkpoints
    assert StudyFile.read(tmp_path / "study").checkpoints == first.checkpoints


def test_a_place_changes_only_while_it_is_empty(tmp_path: Path) -> None:
    open_study(tmp_path, asked(None))
    moved = open_study(tmp_path, asked((tmp_path / "shared").as_uri()))
    place = tmp_path / "shared" / moved.checkpoints.rpartition("/")[2] / "00000"
    place.mkdir(parents=True)
    (place / "epoch-000001.pt").write_bytes(b"weights")

    with pytest.raises(StudyError, match="checkpoints: 'file"):
        open_study(tmp_path, asked(None))


def test_checkpoints_move_with_their_study(tmp_path: Path) -> None:
    here = tmp_path / "here"
    here.mkdir()
    open_study(here, asked(None))
    there = here.rename(tmp_path / "there")

    assert location_of(there, StudyFile.read(there).checkpoints) == str(there / "checkpoints")


def test_links_are_no_part_of_what_a_study_takes(tmp_path: Path) -> None:
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "ledger.log").write_bytes(bytes(1000))
    (tmp_path / "large").write_bytes(bytes(100_000))
    (tmp_path / "study" / "data").symlink_to(tmp_path / "large")
    (tmp_path / "study" / "loop").symlink_to("loop")
    assert 1000 <= size_of(str(tmp_path / "study")) < 2000
    assert size_of(str(tmp_path / "none")) == 0
