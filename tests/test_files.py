"""What is written is whole or not there, whatever happens on the way."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from headway.errors import HeadwayError
from headway.files import model_files, replacing_file, replacing_folder, write_json, write_text

STALL = "import os, sys, time; os.fsync = lambda _: (print('ready', flush=True), time.sleep(60)); "


def killed_when_ready(code: str, *arguments: str) -> None:
    """Run Python code and kill it, as `kill -9` does, once it has printed a line."""
    process = subprocess.Popen([sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    process.kill()
    assert process.wait() == -signal.SIGKILL
    process.stdout.close()


def test_a_file_is_written_and_replaced(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "a.json"
    write_json(path, {"ü": [1, None]})
    write_json(path, [2.5])
    assert json.loads(path.read_text(encoding="utf-8")) == [2.5]
    assert [item.name for item in path.parent.iterdir()] == ["a.json"]


def test_a_kill_while_writing_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")
    killed_when_ready(STALL + "from headway.files import write_text; write_text(sys.argv[1], 'new' * 10**6)", str(path))
    assert path.read_text() == "old"


def test_a_kill_while_filling_a_folder_leaves_the_old_folder(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    with replacing_folder(folder) as temporary:
        (temporary / "weights").write_text("old")
    killed_when_ready(
        STALL + "from headway.files import replacing_folder\n"
        "with replacing_folder(sys.argv[1]) as f: (f / 'weights').write_text('new'); os.fsync(0)",
        str(folder),
    )
    assert (folder / "weights").read_text() == "old"


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_full_disk_keeps_the_old_file_and_names_path_and_cause(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, call, full)
    with pytest.raises(HeadwayError, match=r"a\.txt.*No space left on device"):
        write_text(path, "new")
    assert path.read_text() == "old"
    assert [item.name for item in tmp_path.iterdir()] == ["a.txt"]


def test_a_disk_that_is_really_full_is_one_clear_error(tmp_path: Path) -> None:
    code = (
        "import sys; from headway.files import write_text; from headway.errors import HeadwayError\n"
        "write_text(sys.argv[1], 'old')\n"
        "try: write_text(sys.argv[1], 'new' * 10**6)\n"
        "except HeadwayError as error: print(error, '|', open(sys.argv[1]).read())"
    )
    shell = f'mount -t tmpfs -o size=64k none {tmp_path} && exec "$0" -c "$1" {tmp_path}/a.txt'
    if shutil.which("unshare") is None:
        pytest.skip("no unshare to make a small disk with")
    done = subprocess.run(["unshare", "-rm", "sh", "-c", shell, sys.executable, code], capture_output=True, text=True, check=False)
    if done.returncode and "Traceback" not in done.stderr:
        pytest.skip(f"a small disk cannot be mounted here: {done.stderr.strip()}")
    assert "a.txt: No space left on device." in done.stdout
    assert done.stdout.strip().endswith("| old")


def test_a_file_size_limit_of_the_system_is_one_clear_error(tmp_path: Path) -> None:
    code = (
        "import resource, sys; from headway.files import write_text; from headway.errors import HeadwayError\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "try: write_text(sys.argv[1], 'new' * 10**6)\n"
        "except HeadwayError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "a")], capture_output=True, text=True, check=True)
    assert "File too large" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_a_folder_appears_only_when_it_is_complete(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    with replacing_folder(folder) as temporary:
        (temporary / "weights").write_text("1")
        assert not folder.exists()
    assert [item.name for item in folder.iterdir()] == ["weights"]
    assert [item.name for item in tmp_path.iterdir()] == ["model"]


def test_a_failure_inside_leaves_the_old_folder_and_nothing_else(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    with replacing_folder(folder) as temporary:
        (temporary / "weights").write_text("old")
    with pytest.raises(KeyError), replacing_folder(folder) as temporary:
        (temporary / "weights").write_text("new")
        raise KeyError
    assert (folder / "weights").read_text() == "old"
    assert [item.name for item in tmp_path.iterdir()] == ["model"]


def test_a_new_save_keeps_other_results_in_the_folder(tmp_path: Path) -> None:
    write_text(tmp_path / "model" / "results.json", "{}")
    with replacing_folder(tmp_path / "model") as temporary:
        (temporary / "weights").write_text("1")
    assert sorted(item.name for item in (tmp_path / "model").iterdir()) == ["results.json", "weights"]


def test_stale_files_are_deleted_only_after_the_new_files_are_complete(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    for name in ("old", "results.json"):
        write_text(folder / name, "old")
    with pytest.raises(KeyError), replacing_folder(folder, lambda _: ["old"]) as temporary:
        raise KeyError
    assert (folder / "old").is_file()
    with replacing_folder(folder, lambda _: ["old", "weights", "absent"]) as temporary:
        (temporary / "weights").write_text("new")
    assert sorted(item.name for item in folder.iterdir()) == ["results.json", "weights"]


def test_weights_in_the_formats_of_other_libraries_are_model_files(tmp_path: Path) -> None:
    weights = {"model.fp16.safetensors", "model.safetensors.index.fp16.json", "tf_model.h5", "flax_model.msgpack", "rust_model.ot"}
    for name in {*weights, "README.md", "tokenizer.model", "results.json"}:
        write_text(tmp_path / name, "old")
    assert model_files(tmp_path) == weights


@pytest.mark.parametrize("index", ["{", "[]", '{"weight_map": [1]}', '{"weight_map": {"a": "../secret.txt", "b": "missing"}}'])
def test_a_damaged_index_is_a_model_file_and_names_no_file_outside_the_folder(tmp_path: Path, index: str) -> None:
    write_text(tmp_path / "model" / "model.safetensors.index.json", index)
    write_text(tmp_path / "secret.txt", "keep")
    assert model_files(tmp_path / "model") == {"model.safetensors.index.json"}


def test_a_path_below_a_file_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(HeadwayError, match="cannot write"):
        write_text(tmp_path / "file" / "a.txt", "new")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_json_that_other_readers_refuse_is_not_written(tmp_path: Path, value: float) -> None:
    with pytest.raises(ValueError):
        write_json(tmp_path / "a.json", [value])
    assert not (tmp_path / "a.json").exists()


def test_a_file_written_piece_by_piece_appears_only_when_it_is_whole(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), replacing_file(tmp_path / "new" / "file") as file:
        file.write(b"half")
        raise ZeroDivisionError
    assert list((tmp_path / "new").iterdir()) == []
    with replacing_file(tmp_path / "new" / "file") as file:
        file.write(b"wh")
        file.write(b"ole")
    assert (tmp_path / "new" / "file").read_bytes() == b"whole"
