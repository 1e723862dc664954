from lictor.bindings.remembered import Remembered


def test_values_are_forgotten_after_their_last_use() -> None:
    kept: Remembered[str, int] = Remembered(10)
    kept.put("a", 1, 100.0)
    kept.put("b", 2, 101.0)
    kept.put("a", 3, 108.0)
    assert (kept.get("a"), kept.get("b")) == (3, 2)
    kept.put("c", 4, 111.5)
    assert (kept.get("a"), kept.get("b"), kept.get("c")) == (3, None, 4)
    assert len(kept) == 2


def test_some_are_never_forgotten() -> None:
    kept: Remembered[str, int] = Remembered(None)
    kept.put("a", 1, 0.0)
    kept.put("b", 1, 1e12)
    assert kept.get("a") == 1


def test_room() -> None:
    kept: Remembered[str, int] = Remembered(10, limit=2)
    kept.put("a", 1, 100.0)
    assert not kept.no_room_for("c", 100.0)
    kept.put("b", 1, 105.0)
    assert kept.no_room_for("c", 106.0)
    assert not kept.no_room_for("a", 106.0)
    assert not kept.no_room_for("c", 110.5)
    assert len(kept) == 1
