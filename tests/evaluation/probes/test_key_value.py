"""Key-value tasks: valid JSON, the target pair at its position, and known scores of known models."""

import json
from pathlib import Path

import pytest

from headway.errors import ConfigError, DataError
from headway.evaluation.probes.configs import KeyValueConfig
from headway.evaluation.probes.key_value import by_pairs, generated, load_tasks, moved, probe, prompt, shortened
from tests.evaluation.probes.fakes import Fake


def read(text: str) -> tuple[dict[str, str], str]:
    records = json.loads(text[text.index("{") : text.index("}") + 1])
    return records, text.split('Key: "')[1].split('"')[0]


def perfect(text: str, _: int | None) -> str:
    records, key = read(text)
    return f' "{records[key].upper()}"'


def last(text: str, _: int | None) -> str:
    return list(read(text)[0].values())[-1]


def test_a_perfect_reader_is_right_everywhere_and_a_reader_of_the_last_pair_only_there() -> None:
    tasks = {8: generated(6, 8, 0), 3: generated(6, 3, 0)}
    found = probe(Fake(perfect), tasks, KeyValueConfig()).contexts
    assert list(found) == ["3 pairs", "8 pairs"]
    assert {at.score.share for scores in found.values() for at in scores.positions} == {1.0}
    found = probe(Fake(last), tasks, KeyValueConfig(positions=[0, 1, 2])).contexts
    assert [at.score.share for at in found["3 pairs"].positions] == [0, 0, 1]
    assert [at.score.share for at in found["8 pairs"].positions] == [0, 0, 0]


def test_only_the_target_pair_moves() -> None:
    task = generated(1, 5, 1)[0]
    rest = [record for n, record in enumerate(task.records) if n != task.target]
    for place in range(5):
        other = moved(task, place)
        assert other.records[place] == task.records[task.target] and other.value == task.value
        assert [record for n, record in enumerate(other.records) if n != place] == rest
    assert shortened(task, 5) == task
    assert len(shortened(task, 2).records) == 2 and shortened(task, 2).value == task.value


def test_the_same_seed_gives_the_same_tasks_and_all_keys_differ() -> None:
    tasks = generated(20, 30, 5)
    assert tasks == generated(20, 30, 5) != generated(20, 30, 6)
    keys = [key for task in tasks for record in task.records for key in record]
    assert len(set(keys)) == len(keys) == 20 * 30 * 2
    assert all(len(key) == 36 and key[14] == "4" for key in keys)  # UUIDs of version 4


def test_too_many_pairs_are_an_error_that_names_how_many_fit() -> None:
    fake = Fake(perfect, context_length=40)
    with pytest.raises(DataError, match=r"contexts of 30 pairs .* Ask for --pairs 12,"):
        probe(fake, {30: generated(3, 30, 0)}, KeyValueConfig())
    assert probe(fake, {12: generated(3, 12, 0)}, KeyValueConfig()).tasks == {12: 3}
    with pytest.raises(DataError, match="contexts of 13 pairs"):
        probe(fake, {13: generated(3, 13, 0)}, KeyValueConfig())


def test_a_position_beyond_the_pairs_is_refused() -> None:
    with pytest.raises(ConfigError, match="from 0 to 4"):
        KeyValueConfig(pairs=[5, 9], positions=[5])
    with pytest.raises(ConfigError, match="position 9 is beyond tasks of 4 pairs"):
        probe(Fake(perfect), {4: generated(1, 4, 0)}, KeyValueConfig(data=Path("x"), positions=[9]))


def test_the_real_tasks_are_read_and_solved_by_a_perfect_reader(shared: Path, tmp_path: Path) -> None:
    for count in (75, 140):
        tasks = load_tasks(shared / "data" / "lost_in_the_middle" / f"kv-retrieval-{count}_keys.jsonl.gz")
        assert {n: len(each) for n, each in by_pairs(tasks).items()} == {count: 500}
        assert read(prompt(tasks[0]))[0] == dict(tasks[0].records)
    positions = probe(Fake(perfect), {140: tasks[:5]}, KeyValueConfig()).contexts["140 pairs"].positions
    assert [at.position for at in positions] == [0, 34, 69, 104, 139]
    assert {at.score.share for at in positions} == {1.0}
    (tmp_path / "bad.jsonl").write_text('{"ordered_kv_records": [["a", "b"], ["c", "d"]], "key": "x", "value": "b"}')
    with pytest.raises(DataError, match=r"bad\.jsonl, line 1 needs ordered_kv_records"):
        load_tasks(tmp_path / "bad.jsonl")
