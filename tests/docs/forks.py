"""Runs commands and code of the docs in forks of one process that has imported everything, which takes longer than most of them do.

`python forks.py SOCKET` serves; `write_commands` makes commands that ask it.
"""

import json
import os
import signal
import socket
import sys
import traceback
from pathlib import Path

ASK = """
import json, os, socket, sys
server = socket.socket(socket.AF_UNIX)
server.connect({path!r})
socket.send_fds(server, [json.dumps([sys.argv[1:], os.getcwd(), dict(os.environ)]).encode()], [0, 1, 2])
server.shutdown(socket.SHUT_WR)
told = server.recv(1)
sys.exit(told[0] if told else 1)
"""


def write_commands(folder: Path, address: Path) -> None:
    """`headway` and `python` as commands in `folder`, which the server at `address` runs."""
    client = folder / "ask.py"
    client.write_text(ASK.format(path=str(address)))
    for name in ("headway", "python"):
        (folder / name).write_text(f'#!/bin/sh\nexec {sys.executable} -S -E {client} {name} "$@"\n')
        (folder / name).chmod(0o755)


def serve(address: str) -> None:
    import peft  # noqa: F401
    import transformers

    import headway.decoding
    import headway.evaluation
    import headway.experiments
    import headway.training

    transformers.AutoModelForCausalLM.from_pretrained(headway.embedded_path())
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the forks
    server = socket.socket(socket.AF_UNIX)
    server.bind(address)
    server.listen()
    while True:
        asked, _ = server.accept()
        if os.fork() == 0:
            server.close()
            _answer(asked)
        asked.close()


def _answer(asked: socket.socket) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    message, files, *_ = socket.recv_fds(asked, 2**20, 3)
    while part := asked.recv(2**20):
        message += part
    (name, *words), folder, environment = json.loads(message)
    for target, file in enumerate(files):
        os.dup2(file, target)
    sys.stdout, sys.stderr = (os.fdopen(os.dup(target), "w") for target in (1, 2))  # text streams of the new files
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    code = 1
    try:
        code = _run(name, words)
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        asked.send(bytes([code % 256]))
        os._exit(0)


def _run(name: str, words: list[str]) -> int:
    sys.path.insert(0, str(Path(__file__).parent))
    if name == "headway":
        import small

        return small.run(words)
    script = sys.stdin.read() if words[0] == "-" else Path(words[0]).read_text()
    sys.argv = words
    exec(compile(script, words[0], "exec"), {"__name__": "__main__", "__file__": words[0]})
    return 0


if __name__ == "__main__":
    serve(sys.argv[1])
