"""Code of answers: what counts as passed, and that nothing it does reaches further than its own folder and seconds."""

import socket
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from finetuning.errors import FinetuningError
from finetuning.evaluation import python_tests
from finetuning.evaluation.exam import Candidate, Exam, outcomes, sit
from finetuning.evaluation.generation import Question
from finetuning.evaluation.metrics import METRICS, Outcome
from finetuning.evaluation.python_tests import (
    CHILD,
    asserts_of,
    code_of,
    could_pass,
    endings,
    passes,
    program,
    report_of,
    require_confinement,
)
from finetuning.progress import Progress
from finetuning.recipe.evaluation import EvaluationSpec
from tests.tiny_models import ZEPHYR, save_tiny_model
from tests.waiting import until

SILENT = Progress(lambda line: None, "")
TWICE = "Like this:\n```python\ndef twice(x):\n    return {}\n```\nIt doubles."
CODE = "import math\n\ndef twice(x):\n    return x * 2\n\nassert twice(2) == math.sqrt(16)\nprint(twice(3))"
REFERENCE = f"```python\n{CODE}\n```"


def passed(*codes, reference=""):
    return passes([f"```python\n{code}\n```" for code in codes], [reference] * len(codes), SILENT, "base")


def test_an_answer_has_to_keep_the_references_asserts():
    answers = [TWICE.format("2 * x"), TWICE.format("x"), "No idea.", ""]
    assert passes(answers, [REFERENCE] * 4, SILENT, "base") == [1.0, 0.0, 0.0, 0.0]


def test_the_tests_are_the_references_asserts_and_the_imports_that_they_may_need():
    assert asserts_of(REFERENCE) == "import math\nassert twice(2) == math.sqrt(16)\n"
    assert asserts_of("```python\nimport math\nprint(2)\n```") == asserts_of("2 and 2 is 4.") == ""


TEXTS = {
    "a block": ("So:\n```python\nx = 1\n```\nDone.", "x = 1\n"),
    "two blocks": ("```py\nx = 1\n```\nand\n```Python3\ny = x\n```", "x = 1\n\ny = x\n"),
    "a block that ends with the answer": ("```python\nx = 1\ny = 2", "x = 1\ny = 2"),
    "a block without a language": ("```\nx = 1\n```", "x = 1\n"),
    "another language beside it": ("```bash\npip install x\n```\n```python\nx = 1\n```", "x = 1\n"),
    "another language alone": ("```bash\nls\n```", None),
    "nothing but code": ("def one():\n    return 1\n", "def one():\n    return 1\n"),
    "words": ("It is one.", None),
    "a word that is Python": ("Yes", None),
    "a number that is Python": ("42", None),
    "code that is no Python": ("```python\nx = = 1\n```", "x = = 1\n"),
}


@pytest.mark.parametrize("case", TEXTS)
def test_the_code_of_an_answer_is_found(case):
    text, code = TEXTS[case]
    assert code_of(text) == code


FINE = {
    "printing": "print('x' * 100_000)",
    "a file of its own": "import os\nopen('a', 'w').write('x')\nassert open('a').read() == 'x'\nos.remove('a')",
    "a file for a while": "import tempfile\nwith tempfile.NamedTemporaryFile('w+') as file:\n    file.write('x')",
    "threads": "from concurrent.futures import ThreadPoolExecutor as Pool\nassert list(Pool(4).map(abs, [-1])) == [1]",
    "asyncio": "import asyncio\nasync def f():\n    await asyncio.sleep(0.01)\nasyncio.run(f())",
    "the standard library": "import csv, datetime, decimal, hashlib, json, random, sqlite3, ssl, unittest, zoneinfo",
    "being the main program": "assert __name__ == '__main__'",
    "surrogates": "x = '\ud800'",
}


BODY = "def twice(x):\n    y = x\n    return y + x\n"
ASSERTED = f"import math\n{BODY}\nassert twice(2) == math.sqrt(16)\nassert twice(0) == 0"


@pytest.mark.parametrize(
    ("cut", "plain", "asserted"),
    [
        ("import math\ndef twice(x):", False, False),
        ("import math\ndef twice(x):\n    y = x\n", True, False),
        (f"import math\n{BODY}", True, True),
        (f"import math\n{BODY}\nassert twice(2) ==", False, False),
        (f"import math\n{BODY}\nassert twice(2) == math.sqrt(16)", True, True),
        ("It doubles.", False, False),
    ],
)
def test_code_that_was_cut_could_pass_where_it_runs_and_has_all_that_the_asserts_may_need(cut, plain, asserted):
    assert could_pass(cut, f"import math\n{BODY}") is plain
    assert could_pass(cut, f"```python\n{ASSERTED}\n```") is asserted
    assert could_pass(ASSERTED, ASSERTED)


def test_what_a_program_may_do():
    assert dict(zip(FINE, passed(*FINE.values()), strict=True)) == dict.fromkeys(FINE, 1.0)


def test_the_same_program_ends_in_the_same_way():
    print_hash = [sys.executable, "-c", "print(hash('a'))"]
    first = subprocess.run(print_hash, env={"PYTHONHASHSEED": "0"}, capture_output=True, text=True, check=True)
    assert passed(f"assert hash('a') == {first.stdout}") == [1.0]


FAILS = {
    "an exception": "1 / 0",
    "no Python": "x = = 1",
    "an end before the asserts": "import sys\ndef twice(x):\n    return 2 * x\nsys.exit(0)",
    "an end without a word": "import os\ndef twice(x):\n    return 2 * x\nos._exit(0)",
    "a question to the user": "input()",
    "a packet of somebody's": "import numpy",
}


def test_what_does_not_run_to_its_end_fails():
    reference = "```python\nassert True\n```"
    assert passed(*FAILS.values(), reference=reference) == [0.0] * len(FAILS)


@pytest.fixture
def secret(tmp_path_factory):
    """A file of the user's, beside all folders that programs run in."""
    path = Path(tmp_path_factory.mktemp("home")) / "token"
    path.write_text("secret")
    return path


def attacks(secret):
    """What a program should not be able to do, each written so that it would pass if it could."""
    return {
        "read a file": f"open({str(secret)!r}).read()",
        "list a folder": f"import os\nos.listdir({str(secret.parent)!r})",
        "write a file": f"open({str(secret.parent / 'new')!r}, 'w')",
        "cut a file short": f"import os\nos.truncate({str(secret)!r}, 0)",
        "remove a file": f"import os\nos.remove({str(secret)!r})",
        "link to a file": f"import os\nos.symlink({str(secret)!r}, 'here')\nopen('here').read()",
        "change a mode": f"import os\nos.chmod({str(secret)!r}, 0)",
        "change a time": f"import os\nos.utime({str(secret)!r}, (0, 0))",
        "read the parent's environment": "import os\nopen(f'/proc/{os.getppid()}/environ').read()",
        "read its own environment": "import os\nassert 'HOME' in os.environ",
        "see passwords": "open('/etc/passwd').read()",
        "fork": "import os\nif not os.fork():\n    os._exit(0)",
        "start a program": "import subprocess\nsubprocess.run(['/bin/true'])",
        "kill its parent": "import os\nos.kill(os.getppid(), 0)",
        "have a signal sent": "import fcntl, os\nfcntl.fcntl(os.pipe()[0], fcntl.F_SETOWN, os.getppid())",
        "open a socket": "import socket\nsocket.socket()",
        "change its limits": "import resource as r\nr.setrlimit(r.RLIMIT_CPU, (7, 7))",
        "make a large file": "with open('large', 'wb') as file:\n    file.write(bytes(2**21))",
        "take all memory": "x = bytearray(2**31)",
        "take all memory bit by bit": "x = [0]\nwhile True:\n    x += x",
        "call the kernel itself": "import ctypes\nassert ctypes.CDLL(None).syscall(41, 2, 1, 0) >= 0",  # socket
        "read its parent's memory": "import os\nopen(f'/proc/{os.getppid()}/mem', 'rb').read(1)",
        "read its parent's files": "import os\nos.listdir(f'/proc/{os.getppid()}/fd')",
        "see who else runs": "import os\nassert set(filter(str.isdigit, os.listdir('/proc'))) - {str(os.getpid())}",
        "go up and read": f"import os\nos.chdir('/')\nopen({str(secret)!r}).read()",
        "read by a relative path": f"import os\nopen(os.path.relpath({str(secret)!r})).read()",
        "read by its own root": f"open('/proc/self/root' + {str(secret)!r}).read()",
        "read by its own folder": f"import os\nopen('/proc/self/cwd/' + os.path.relpath({str(secret)!r})).read()",
        "link a file hard": f"import os\nos.link({str(secret)!r}, 'here')\nopen('here').read()",
        "move a file": f"import os\nos.rename({str(secret)!r}, 'here')",
        "move a file there": f"import os\nopen('x', 'w').close()\nos.rename('x', {str(secret.parent / 'new')!r})",
        "make a folder": f"import os\nos.mkdir({str(secret.parent / 'new')!r})",
        "remove a folder": f"import shutil\nshutil.rmtree({str(secret.parent)!r})",
        "give a file away": f"import os\nos.chown({str(secret)!r}, 1, 1)",
        "map a file": f"import mmap, os\nmmap.mmap(os.open({str(secret)!r}, os.O_RDONLY), 0)",
        "read a file by the kernel": f"import ctypes\nassert ctypes.CDLL(None).open({str(secret)!r}.encode(), 0) >= 0",
        "make a pipe with a name there": f"import os\nos.mkfifo({str(secret.parent / 'new')!r})",
        "make a device": "import os\nos.mknod('device', 0o20666, os.makedev(1, 3))",
        "spawn": "import os\nos.posix_spawn('/bin/true', ['true'], {})",
        "become another program": "import os\nos.execv('/bin/true', ['true'])",
        "fork by another name": "import ctypes\nassert ctypes.CDLL(None).vfork() >= 0",
        "start processes of a pool": "from multiprocessing import Pool\nPool(1).map(abs, [1])",
        "kill everybody": "import os\nos.kill(-1, 0)",
        "kill its group": "import os\nos.killpg(os.getpgid(os.getppid()), 0)",
        "watch its parent": "import ctypes, os\nassert ctypes.CDLL(None).ptrace(16, os.getppid(), 0, 0) == 0",  # attach
        "open a socket of a file": "import socket\nsocket.socket(socket.AF_UNIX)",
        "ask for a name": "import socket\nsocket.getaddrinfo('example.org', 80)",
        "call the web": "import urllib.request\nurllib.request.urlopen('http://127.0.0.1:1')",
        "raise its limits": "import resource as r\nr.setrlimit(r.RLIMIT_AS, (r.RLIM_INFINITY, r.RLIM_INFINITY))",
        "be another user": "import os\nos.setuid(0)\nopen('/etc/shadow').read()",
        "leave its root": "import os\nos.chroot('/tmp')",
        "mount": "import ctypes\nassert ctypes.CDLL(None).mount(b'none', b'/tmp', b'tmpfs', 0, 0) == 0",
        "have a room of its own": "import ctypes\nassert ctypes.CDLL(None).unshare(0x10000000) == 0",
    }


def test_nothing_outside_of_its_folder_can_be_reached(secret):
    before = secret.stat()
    programs = attacks(secret)
    found = dict(zip(programs, passed(*programs.values()), strict=True))
    assert found == dict.fromkeys(programs, 0.0)
    assert secret.read_text() == "secret" and list(secret.parent.iterdir()) == [secret]
    assert secret.stat().st_mode == before.st_mode and secret.stat().st_mtime == before.st_mtime


def test_nobody_is_called(secret):
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        port = server.getsockname()[1]
        assert passed(f"import socket\nsocket.create_connection(('127.0.0.1', {port}))") == [0.0]
        with pytest.raises(TimeoutError):
            server.accept()


@pytest.mark.parametrize("code", ["while True: pass", "import time\ntime.sleep(60)", "while True: print('x' * 10**6)"])
def test_an_endless_program_ends_in_time(code, monkeypatch):
    monkeypatch.setattr(python_tests, "SECONDS", 1)
    started = time.monotonic()
    assert endings([f"```python\n{code}\n```"], [""], SILENT, "base") == ["slow"]
    assert time.monotonic() - started < 4


def test_what_all_programs_take_together_is_bounded_and_the_rest_is_unknown():
    slow = [f"```python\nimport time\ntime.sleep(60 + {number})\n```" for number in range(40)]
    started = time.monotonic()
    found = endings(["```python\nx = 1\n```", *slow], [""] * 41, SILENT, "base", seconds=2)
    assert found == ["passed", *["unknown"] * 40] and time.monotonic() - started < 6


def test_a_thread_that_never_ends_ends_with_the_program(monkeypatch):
    monkeypatch.setattr(python_tests, "SECONDS", 1)
    thread = "import threading, time\nthreading.Thread(target=time.sleep, args=(60,), daemon={}).start()"
    before = children()  # of tests that came earlier
    assert passed(thread.format(False), thread.format(True)) == [0.0, 1.0]
    assert set(children()) <= set(before)


def test_the_kernel_ends_a_program_that_computes_too_long():
    limits = (
        f"import sys\nsys.path.insert(0, {str(CHILD.parent)!r})\nimport confined_python\nconfined_python.SECONDS = 1\n"
    )
    started = time.monotonic()
    run = subprocess.run([sys.executable, "-c", limits + "confined_python.limit()\nwhile True: pass"], check=False)
    assert run.returncode < 0 and time.monotonic() - started < 5


def test_many_files_are_too_many(monkeypatch):
    monkeypatch.setattr(python_tests, "FOLDER", 2**23)
    started = time.monotonic()
    endless = "import itertools\nfor i in itertools.count():\n    open(f'{i}', 'wb').write(bytes(2**19))"
    assert passed(endless) == [0.0]
    assert time.monotonic() - started < 5


def children() -> list[str]:
    """The processes that this one started and that are still there."""
    tasks = Path("/proc/self/task").glob("*/children")
    return [child for path in tasks for child in path.read_text().split()]


def test_a_program_dies_with_whoever_started_it():
    code = "from finetuning.evaluation.python_tests import report_of\nreport_of('import time; time.sleep(60)')"
    parent = subprocess.Popen([sys.executable, "-c", code])
    born = until(Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text, pause=0.02).split()
    time.sleep(0.5)  # it confines itself first
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 5
    while Path(f"/proc/{born[0]}").exists() and "State:\tZ" not in Path(f"/proc/{born[0]}/status").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_machine_that_can_not_confine_runs_nothing(monkeypatch, tmp_path):
    ran = tmp_path / "ran"
    text = CHILD.read_text().replace("OLDEST = 3", "OLDEST = 99")
    (tmp_path / "confined_python.py").write_text(text)
    monkeypatch.setattr(python_tests, "CHILD", tmp_path / "confined_python.py")
    with pytest.raises(FinetuningError, match=r"recipes/tiny\.yaml: .*cannot confine it: Landlock 99 is missing"):
        require_confinement("recipes/tiny.yaml")
    assert report_of(f"open({str(ran)!r}, 'w')").startswith("unconfined: Landlock")
    assert not ran.exists()


def test_a_child_that_comes_to_no_end_is_not_taken_for_what_keeps_it_from_confining(monkeypatch, tmp_path):
    (tmp_path / "confined_python.py").write_text("import time\ntime.sleep(60)")
    monkeypatch.setattr(python_tests, "CHILD", tmp_path / "confined_python.py")
    monkeypatch.setattr(python_tests, "SECONDS", 1)
    with pytest.raises(FinetuningError, match=r"cannot confine it: confined_python\.py did not run to its end"):
        require_confinement("recipes/tiny.yaml")


def test_this_machine_can_confine():
    require_confinement("recipes/tiny.yaml")


@pytest.fixture
def speaker(tmp_path):
    """The folder of a tiny model that answers `x=1` to everything, its tokenizer, and a prompt."""
    folder = save_tiny_model("llama-3", tmp_path / "base", ZEPHYR)
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    prompt = tokenizer("<|assistant|>\n").input_ids
    said = [prompt[-1], *tokenizer("x=1").input_ids, tokenizer.eos_token_id]
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "o_proj" in name or "down_proj" in name or "lm_head" in name:
                weight.zero_()  # what remains is a token's own embedding
        for i, (token, following) in enumerate(pairwise(said)):
            model.get_input_embeddings().weight[token] = torch.eye(64)[i]
            model.lm_head.weight[following, i] = 1
    model.save_pretrained(folder)
    return folder, tokenizer, prompt


def test_the_code_of_answers_is_run_where_a_metric_asks_for_it_and_nowhere_else(speaker, tmp_path):
    folder, tokenizer, prompt = speaker
    asserts = [f"```python\nassert x == {number}\n```" for number in (1, 2)]
    exam = Exam(tokenizer, [Question("", [], prompt, reference) for reference in asserts], [], [])
    kwargs = {"dtype": "float32", "device_map": "cpu", "attn_implementation": "sdpa", "trust_remote_code": False}
    for metric, passed in {"python-tests": [1.0, 0.0], "exact-match": [0.0, 0.0]}.items():
        sit(
            EvaluationSpec(metrics=(metric,), max_new_tokens=8),
            exam,
            Candidate("base", folder, None, kwargs),
            SILENT,
            tmp_path,
        )
        rows = outcomes(tmp_path)
        assert [row.answer for row in rows] == ["x=1", "x=1"] and [row.passed for row in rows] == passed


def test_the_score_is_what_was_found_when_the_code_was_run():
    right, wrong = (Outcome(REFERENCE, TWICE, True, passed=passed) for passed in (1.0, 0.0))
    assert [METRICS["python-tests"].score(row) for row in (right, wrong)] == [1.0, 0.0]
    assert program(TWICE.format("0"), "") == "def twice(x):\n    return 0\n"
