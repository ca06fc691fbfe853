"""Folders that are listed for the paths of a manifest: few, and enough."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from automl.tracks.image.manifests import few_folders

FOLDERS = st.lists(st.sampled_from(["a", "b", "a-b", "c"]), max_size=4).map("/".join)


def is_below(folder: str, above: str) -> bool:
    return above in {"", folder} or folder.startswith(f"{above}/")


def test_folders_in_others_are_theirs() -> None:
    assert few_folders(["a/b", "a", "a-b", "a/c/d", "b"], 9, lambda _: True) == ["a-b", "a", "b"]
    assert few_folders(["a", "", "b"], 9, lambda _: True) == [""]
    assert few_folders([], 9, lambda _: True) == []


def test_the_deepest_of_too_many_give_way_to_what_they_are_in() -> None:
    deep = [f"data/train/{number}" for number in range(1000)]

    assert few_folders([*deep, "data/test"], 9, lambda _: True) == ["data/test", "data/train"]


def test_what_cannot_be_listed_is_not() -> None:
    deep = [f"{top}/{number}" for top in "ab" for number in range(10)]

    assert few_folders(deep, 5, lambda folder: folder == "a") == ["a", *sorted(deep[10:])]
    assert few_folders(deep, 5, lambda folder: False) == sorted(deep)


@given(folders=st.lists(FOLDERS, max_size=30), most=st.integers(1, 10))
def test_all_folders_are_below_few_of_which_none_is_in_another(
    folders: list[str], most: int
) -> None:
    kept = few_folders(folders, most, lambda _: True)

    assert len(kept) <= most
    assert all(any(is_below(folder, above) for above in kept) for folder in folders)
    assert not any(is_below(one, two) for one in kept for two in kept if one != two)
    assert all(any(is_below(folder, above) for folder in folders) for above in kept)
