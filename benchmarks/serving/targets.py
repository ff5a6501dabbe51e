"""Who is asked what: the floor, the service, and its peers, each as a program, and the requests that go to them."""

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.serving import peers
from benchmarks.serving.model import NAME, peers_graph
from benchmarks.serving.process import Program

APPS = Path(__file__).parent.absolute() / "apps"
FLOOR, OURS = "bare uvicorn", "nelbo"
ONNX, TORCH, PYOD = "FastAPI + onnxruntime", "FastAPI + torch", "FastAPI + PyOD VAE"
MLSERVER, BENTOML, LITSERVE = "MLServer", "BentoML", "LitServe"

# The environment that each peer lives in.
ENVIRONMENTS = {
    ONNX: "naive",
    TORCH: "naive",
    PYOD: "naive",
    MLSERVER: "mlserver",
    BENTOML: "bentoml",
    LITSERVE: "litserve",
}

SCORE = f"/v1/models/{NAME}/score"
BARE = f"{SCORE}?explain=none"  # peers explain nothing
INFER = f"/v2/models/{NAME}/infer"


@dataclass(frozen=True)
class Target:
    """One kind of request to one program.

    Attributes:
        program: its name.
        form: of the body.
        path: with its query.
        note: what sets it apart from another of the same program and form.
    """

    program: str
    form: str
    path: str
    note: str = ""

    @property
    def name(self) -> str:
        """As tables call it."""
        return ", ".join(filter(None, (self.program, self.form, self.note)))


@dataclass(frozen=True)
class Place:
    """Where everything lies that programs need.

    Attributes:
        folder: of the bundle's store and the peers' graph, absolute.
        peers: of their environments, absolute.
    """

    folder: Path
    peers: Path


def programs(place: Place, names: Iterable[str]) -> tuple[dict[str, Program], dict[str, str]]:
    """Those that can be started, by name, and why the others cannot."""
    found: dict[str, Program] = {}
    problems: dict[str, str] = {}
    for name in dict.fromkeys(names):
        environment = ENVIRONMENTS.get(name)
        problem = environment and peers.problem(place.peers, environment)
        if problem:
            problems[name] = problem
        else:
            found[name] = _PROGRAMS[name](place, free_port())
    return found, problems


def _floor(_: Place, port: int) -> Program:
    command = [sys.executable, "-m", *_uvicorn(port), "floor:app"]
    return Program(command, port, folder=APPS)


def _ours(place: Place, port: int) -> Program:
    environment = {"NELBO_MODELS": str(place.folder / "models"), "NELBO_PORT": str(port)}
    return Program([sys.executable, "-P", "-m", "service"], port, environment)


def _onnx(place: Place, port: int) -> Program:
    return _naive(place, port, "naive_onnx", _graph(place))


def _torch(place: Place, port: int) -> Program:
    return _naive(place, port, "naive_torch", {})


def _pyod(place: Place, port: int) -> Program:
    return _naive(place, port, "naive_pyod", {"PYOD_MODEL": str(_pyod_model(place)), "OMP_NUM_THREADS": "1"})


def _naive(place: Place, port: int, app: str, environment: Mapping[str, str]) -> Program:
    command = [str(peers.python(place.peers, "naive")), "-m", *_uvicorn(port), f"{app}:app"]
    return Program(command, port, environment, APPS)


def _mlserver(place: Place, port: int) -> Program:
    settings = {
        "HTTP_PORT": port,
        "GRPC_PORT": free_port(),
        "METRICS_PORT": free_port(),
        "HOST": "127.0.0.1",
        "DEBUG": "false",
        "PARALLEL_WORKERS": 0,  # in the server's own process: cheaper, and the only way that works everywhere
        "MODEL_NAME": NAME,
        "MODEL_IMPLEMENTATION": "mls.Score",
    }
    environment = _graph(place) | {f"MLSERVER_{name}": str(value) for name, value in settings.items()}
    command = [str(peers.python(place.peers, "mlserver").with_name("mlserver")), "start", "."]
    return Program(command, port, environment | {"PYTHONPATH": str(APPS)}, APPS)


def _bentoml(place: Place, port: int) -> Program:
    scripts = peers.python(place.peers, "bentoml").parent
    environment = {"BENTOML_DO_NOT_TRACK": "True", "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}"}
    command = [str(scripts / "bentoml"), "serve", "bento:Score", "--host", "127.0.0.1", "--port", str(port)]
    return Program(command, port, _graph(place) | environment, APPS)


def _litserve(place: Place, port: int) -> Program:
    return Program([str(peers.python(place.peers, "litserve")), "lit.py", str(port)], port, _graph(place), APPS)


def _uvicorn(port: int) -> list[str]:
    return ["uvicorn", "--port", str(port), "--no-access-log", "--log-level", "warning"]


def _graph(place: Place) -> dict[str, str]:
    return {"GRAPH": str(peers_graph(place.folder)), "ORT_DISABLE_TELEMETRY": "1"}


def _pyod_model(place: Place) -> Path:
    path = place.folder / "pyod.joblib"
    if not path.exists():
        subprocess.run([peers.python(place.peers, "naive"), "fit_pyod.py", path], cwd=APPS, check=True)
    return path


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


_PROGRAMS: dict[str, Callable[[Place, int], Program]] = {
    FLOOR: _floor,
    OURS: _ours,
    ONNX: _onnx,
    TORCH: _torch,
    PYOD: _pyod,
    MLSERVER: _mlserver,
    BENTOML: _bentoml,
    LITSERVE: _litserve,
}
