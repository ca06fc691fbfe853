from __future__ import annotations

from automl.search.recent import Recent


def test_what_was_unused_for_longest_is_computed_again() -> None:
    computed: list[str] = []
    recent = Recent[str, str](2)

    def value(key: str) -> str:
        def compute() -> str:
            computed.append(key)
            return key.upper()

        return recent.get(key, compute)

    assert [value(key) for key in ["a", "b", "a", "c", "a", "b"]] == ["A", "B", "A", "C", "A", "B"]
    assert computed == ["a", "b", "c", "b"]


def test_what_is_put_is_not_computed() -> None:
    recent = Recent[str, int](1)
    recent.put("a", 1)

    assert recent.get("a", lambda: 2) == 1
    recent.put("b", 3)
    assert recent.get("a", lambda: 2) == 2
