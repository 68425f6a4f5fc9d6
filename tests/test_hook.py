"""The post-import hook, in real interpreters, with a stand-in for ESPnet that imports at once.

What the plugin registers with the real ESPnet is tested in test_plugin.py.
"""

import sys
import zipfile
from pathlib import Path

import pytest
from interpreter import Interpreter, package_folder

# One write a line, for the test with threads.
EXECUTING = 'print(f"executing {__name__}\\n", end="")\n'
ASR = (
    EXECUTING
    + """\
class Base: ...
class Choices:
    def __init__(self): self.classes, self.base_type, self.name = {}, Base, "x"
encoder_choices, decoder_choices, model_choices = Choices(), Choices(), Choices()
class ASRTask:
    @classmethod
    def build_model(cls, args): return "built"
    @classmethod
    def main_worker(cls, args): return args
"""
)
# Stands for what `register` does: only that it is called, for which module, and when, matters here.
RECORDER = """\
import sys, espnet_quant4.plugin as plugin
def register(module):
    print(f"registered {module.__name__} {hasattr(module, 'ASRTask')}\\n", end="")
plugin.register = register
"""


def empty_tasks(folder: Path) -> Path:
    tasks = folder / "espnet2" / "tasks"
    tasks.mkdir(parents=True)
    (folder / "espnet2" / "__init__.py").write_text("")
    (tasks / "__init__.py").write_text("")
    return tasks


@pytest.fixture(scope="module")
def espnet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("espnet")
    tasks = empty_tasks(folder)
    (tasks / "asr.py").write_text(ASR)
    (tasks / "lm.py").write_text(EXECUTING)
    (tasks / "tts.py").write_text(EXECUTING)
    return folder


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory, espnet: Path) -> Interpreter:
    return Interpreter(tmp_path_factory.mktemp("venv"), [package_folder(), espnet])


@pytest.fixture(scope="module")
def python_without_pth(tmp_path_factory: pytest.TempPathFactory, espnet: Path) -> Interpreter:
    return Interpreter(tmp_path_factory.mktemp("plain"), [package_folder(), espnet], plugin=False)


REGISTERED = ["executing espnet2.tasks.asr", "registered espnet2.tasks.asr True"]


def test_interpreter_start_imports_nothing(
    python: Interpreter, python_without_pth: Interpreter
) -> None:
    code = "import sys; print(*sorted(sys.modules), sep='\\n')"
    assert python.lines(code) == python_without_pth.lines(code)


def test_the_package_waits_for_the_tasks(python: Interpreter) -> None:
    code = "import sys, espnet2; import espnet2.tasks.tts; print('espnet_quant4' in sys.modules, "
    code += "'espnet_quant4.plugin' in sys.modules)"
    assert python.lines(code) == ["executing espnet2.tasks.tts", "True False"]


def test_espnet3_wakes_the_package_too(python: Interpreter, tmp_path: Path) -> None:
    (tmp_path / "espnet3").mkdir()
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import espnet3; "
    assert python.lines(code + "print('espnet_quant4' in sys.modules)") == ["True"]


def test_registers_after_the_task_has_executed(python: Interpreter) -> None:
    assert python.lines(RECORDER + "import espnet2.tasks.asr") == REGISTERED


def test_each_target_is_registered_for_itself(python: Interpreter) -> None:
    printed = python.lines(RECORDER + "import espnet2.tasks.lm, espnet2.tasks.asr")
    assert printed == [
        "executing espnet2.tasks.lm",
        "registered espnet2.tasks.lm False",
        *REGISTERED,
    ]


def test_import_of_the_package_alone_is_enough(python_without_pth: Interpreter) -> None:
    assert python_without_pth.lines(RECORDER + "import espnet2.tasks.asr") == REGISTERED


def test_import_after_the_task_registers_at_once(python_without_pth: Interpreter) -> None:
    code = """
import espnet2.tasks.asr as asr
assert not asr.encoder_choices.classes
import types, sys
plugin = types.ModuleType("espnet_quant4.plugin")
plugin.register = lambda m: print("registered", m.__name__, hasattr(m, "ASRTask"))
sys.modules["espnet_quant4.plugin"] = plugin
import espnet_quant4
"""
    assert python_without_pth.lines(code) == REGISTERED


@pytest.mark.parametrize(
    "value, on",
    [("1", False), ("true", False), ("yes", False), ("0", True), ("no", True), ("", True)],
)
def test_environment_variable(python: Interpreter, value: str, on: bool) -> None:
    printed = python.lines(RECORDER + "import espnet2.tasks.asr", ESPNET_QUANT4_DISABLE=value)
    assert printed == (REGISTERED if on else REGISTERED[:1])


def test_failure_warns_and_espnet_goes_on(python: Interpreter) -> None:
    code = """
import espnet_quant4.plugin as plugin
def register(module): raise KeyError("no such thing")
plugin.register = register
import espnet2.tasks.asr as asr
print(asr.ASRTask.build_model(None))
"""
    done = python.run("-c", code)
    assert done.stdout.splitlines() == ["executing espnet2.tasks.asr", "built"]
    assert done.stderr.count("RuntimeWarning") == 1
    for part in (
        "espnet_quant4 could not register with espnet2.tasks.asr",
        "KeyError: 'no such thing'",
        "ESPNET_QUANT4_DISABLE=1",
    ):
        assert part in done.stderr


def test_broken_task_raises_its_own_error(python: Interpreter, tmp_path: Path) -> None:
    (empty_tasks(tmp_path) / "asr.py").write_text("raise ImportError('ESPnet is broken')\n")
    code = RECORDER + f"sys.path.insert(0, {str(tmp_path)!r})\nimport espnet2.tasks.asr"
    done = python.run("-c", code, check=False)
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.rstrip().endswith("ImportError: ESPnet is broken")


def test_missing_task_is_an_ordinary_import_error(python: Interpreter, tmp_path: Path) -> None:
    empty_tasks(tmp_path)
    code = RECORDER + f"sys.path.insert(0, {str(tmp_path)!r})\nimport espnet2.tasks.asr"
    done = python.run("-c", code, check=False)
    assert "ModuleNotFoundError: No module named 'espnet2.tasks.asr'" in done.stderr


def test_module_keeps_its_own_loader(python: Interpreter, espnet: Path) -> None:
    code = (
        RECORDER
        + """
import importlib.util
before = importlib.util.find_spec("espnet2.tasks.asr")
print(before.loader.get_source("espnet2.tasks.asr") == open(before.origin).read())
import espnet2.tasks.asr as asr, inspect, pickle
from importlib.machinery import SourceFileLoader
print(type(asr.__loader__) is SourceFileLoader, asr.__spec__.loader is asr.__loader__)
print(inspect.getsource(asr) == open(asr.__file__).read())
print(pickle.loads(pickle.dumps(asr.ASRTask.main_worker))(7))
"""
    )
    assert python.lines(code) == ["True", *REGISTERED, "True True", "True", "7"]


def test_reload_registers_again(python: Interpreter) -> None:
    code = RECORDER + "import espnet2.tasks.asr as asr, importlib; importlib.reload(asr)"
    assert python.lines(code) == REGISTERED * 2


def test_run_as_a_script(python: Interpreter) -> None:
    assert python.run("-m", "espnet2.tasks.asr").stdout == "executing __main__\n"


def test_module_in_a_zip_file(python: Interpreter, tmp_path: Path) -> None:
    archive = tmp_path / "espnet.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("espnet2/__init__.py", "")
        file.writestr("espnet2/tasks/__init__.py", "")
        file.writestr("espnet2/tasks/asr.py", ASR)
    code = RECORDER + f"sys.path.insert(0, {str(archive)!r})\nimport espnet2.tasks.asr as asr\n"
    code += "print(type(asr.__loader__).__name__)"
    assert python.lines(code) == [*REGISTERED, "zipimporter"]


def test_lazily_loaded_module(python: Interpreter) -> None:
    code = (
        RECORDER
        + """
import importlib.util
spec = importlib.util.find_spec("espnet2.tasks.asr")
spec.loader = importlib.util.LazyLoader(spec.loader)
module = importlib.util.module_from_spec(spec)
sys.modules[spec.name] = module
spec.loader.exec_module(module)
print("not yet")
module.ASRTask
"""
    )
    assert python.lines(code) == ["not yet", *REGISTERED]


def test_threads_register_once(python: Interpreter) -> None:
    code = (
        RECORDER
        + """
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
with ThreadPoolExecutor(8) as pool:
    list(pool.map(import_module, ["espnet2.tasks.asr", "espnet2.tasks.lm"] * 8))
"""
    )
    printed = python.lines(code)
    assert sorted(printed) == sorted(
        [*REGISTERED, "executing espnet2.tasks.lm", "registered espnet2.tasks.lm False"]
    )


def test_package_reload_leaves_one_finder(python: Interpreter) -> None:
    code = (
        RECORDER
        + """
import importlib, espnet_quant4, espnet_quant4.hook
importlib.reload(espnet_quant4)
importlib.reload(espnet_quant4.hook)
espnet_quant4.hook.install()
print(sum(getattr(f, "__module__", "") == "espnet_quant4.hook" for f in sys.meta_path))
import espnet2.tasks.asr
"""
    )
    assert python.lines(code) == ["1", *REGISTERED]


def test_child_processes_inherit_nothing_and_still_register(
    python: Interpreter, tmp_path: Path
) -> None:
    script = tmp_path / "train.py"
    script.write_text(
        """
import multiprocessing, sys

def child(queue):
    import espnet_quant4.plugin as plugin
    seen = []
    plugin.register = lambda m: seen.append(m.__name__)
    import espnet2.tasks.asr
    queue.put(seen)

if __name__ == "__main__":
    for method in ("spawn", "forkserver"):
        context = multiprocessing.get_context(method)
        queue = context.Queue()
        processes = [context.Process(target=child, args=(queue,)) for _ in range(2)]
        for process in processes: process.start()
        print(method, *[queue.get(timeout=60) for _ in processes])
        for process in processes: process.join()
    print("espnet2" in sys.modules)
"""
    )
    printed = python.run(str(script)).stdout.splitlines()
    seen = "['espnet2.tasks.asr'] ['espnet2.tasks.asr']"
    assert [line for line in printed if not line.startswith("executing")] == [
        f"spawn {seen}",
        f"forkserver {seen}",
        "False",
    ]


def test_subinterpreter(python: Interpreter) -> None:
    name = "_interpreters" if sys.version_info >= (3, 13) else "_xxsubinterpreters"
    run = "exec" if sys.version_info >= (3, 13) else "run_string"
    code = f"""
import {name} as interpreters, sys
inner = interpreters.create()
failure = interpreters.{run}(inner, {RECORDER + "import espnet2.tasks.asr; sys.stdout.flush()"!r})
print(failure, "espnet2" in sys.modules)
"""
    assert python.lines(code) == [*REGISTERED, "None False"]


def test_pth_without_the_package_is_quiet(espnet: Path, tmp_path: Path) -> None:
    python = Interpreter(tmp_path / "venv", [espnet])
    assert python.lines("import espnet2.tasks.asr") == REGISTERED[:1]


def test_pth_with_a_broken_package_says_so(espnet: Path, tmp_path: Path) -> None:
    package = tmp_path / "path" / "espnet_quant4"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("import no_such_module\n")
    python = Interpreter(tmp_path / "venv", [package.parent, espnet])
    done = python.run("-c", "import espnet2.tasks.asr; print('fine')")
    assert done.stdout.splitlines() == [*REGISTERED[:1], "fine"]
    assert "RuntimeWarning: espnet_quant4 does not import" in done.stderr
    assert "no_such_module" in done.stderr
