"""Attributes come back as they were, inherited and missing ones too."""

import threading

import pytest

from headway.temporarily import temporarily


class Base:
    own, inherited = 1, [2]

    @classmethod
    def build(cls) -> str:
        return cls.__name__


class Child(Base):
    own = 3


def test_own_inherited_and_missing_attributes_are_restored_after_an_error():
    with pytest.raises(KeyError), temporarily(Child, own=4, inherited=5, missing=6, build=lambda: "changed"):
        assert (Child.own, Child.inherited, Child.missing, Child.build()) == (4, 5, 6, "changed")
        raise KeyError
    assert (Child.own, Child.inherited, Child.build()) == (3, [2], "Child")
    assert "inherited" not in vars(Child) and not hasattr(Child, "missing")


def test_a_classmethod_of_the_class_itself_stays_a_classmethod():
    with temporarily(Base, build=lambda: "changed"):
        pass
    assert isinstance(vars(Base)["build"], classmethod) and Child.build() == "Child"


def test_changes_of_two_threads_do_not_overlap():
    seen = []

    def change(value: int) -> None:
        for _ in range(200):
            with temporarily(Base, own=value):
                seen.append(Base.own == value)

    threads = [threading.Thread(target=change, args=(value,)) for value in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(seen) and Base.own == 1
