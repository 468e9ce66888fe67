"""The job serve: a trained model as a service, until it is told to stop."""

from __future__ import annotations

import getpass
import importlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from parallel_tunes import table_jobs
from parallel_tunes.config_serve import ServeConfig, ServeJob
from parallel_tunes.parallel.mesh import Mesh
from parallel_tunes.run import Run
from parallel_tunes.schema import UserError
from parallel_tunes.session import Facts, Job

if TYPE_CHECKING:
    from parallel_tunes.serve.service import Models

PACKAGES = ("fastapi", "python_multipart", "prometheus_client", "uvicorn", "websockets")  # of the extra `serve`
SHORTEST_TOKEN = 16
TASKS = ("genre", "relisten", "popularity")


def serve(cfg: ServeJob, mesh: Mesh, run: Run) -> Facts:
    """Answer requests until a signal comes, then those that were accepted; what was counted is the report."""
    require()
    check(cfg.serve)
    paths = [*([cfg.model_path] if cfg.model_path else []), *cfg.models]
    if not paths:
        raise UserError("serve: which model? ptunes serve model=logs/train/NAME/model, or models=[A,B]")
    from parallel_tunes.serve import app, server
    from parallel_tunes.serve.service import Service

    listener, is_loopback = server.open_socket(cfg.serve)
    with listener:
        service = Service(cfg.serve, load(paths, cfg.serve, mesh), run.folder / "decoder.log")
        try:
            application = app.build(service, is_loopback=is_loopback)
            listener.listen()  # from now on who comes is answered, if not at once
            host, port = listener.getsockname()[:2]
            run.log(f"serving on http://{f'[{host}]' if ':' in host else host}:{port}")
            for line in tell_tunnel(port, is_loopback=is_loopback):
                run.log(line)
            server.run(application, listener, service, lambda: run.should_stop)
        finally:
            service.close()
    return {"metrics": service.meter.summarise(), "served": service.describe(), "stopped_by": run.stop.signal_name}


def require() -> None:
    """Load the packages of the extra `serve`.

    Raises:
        UserError: one is not installed.
    """
    for name in PACKAGES:
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise UserError(f"serve: {error}: pip install -e '.[serve]' in the checkout") from error


def check(cfg: ServeConfig) -> None:
    """Raise a UserError where a token is none that can be asked for."""
    token = cfg.token
    if token is None:
        return
    if not token.isascii() or not token.isprintable() or " " in token or len(token) < SHORTEST_TOKEN:
        raise UserError(
            f"serve.token: give {SHORTEST_TOKEN} or more letters, digits and signs, such as openssl rand -hex 16 says"
        )


def load(paths: list[Path], cfg: ServeConfig, mesh: Mesh) -> Models:
    """The models of some folders, each verified.

    Raises:
        UserError: one is damaged, of a task that is not served, or the second of its task.
    """
    from parallel_tunes.serve.listen_predictor import ListenPredictor
    from parallel_tunes.serve.predictor import Predictor
    from parallel_tunes.serve.service import Models
    from parallel_tunes.serve.track_predictor import TrackPredictor
    from parallel_tunes.train import model_folder

    max_bytes = cfg.max_mib << 20
    found: dict[str, Any] = {}
    for path in paths:
        task = table_jobs.task_of(path)
        if task is None:
            model_folder.read(path)  # says what is wrong
        if task not in TASKS:
            raise UserError(f"models={path}: of task {task}; {', '.join(TASKS)} are served")
        if task in found:
            raise UserError(f"models={path}: a second model of task={task}; one of each is served")
        if task == "popularity":
            found[task] = TrackPredictor(path, max_bytes=max_bytes)
        else:
            kind = ListenPredictor if task == "relisten" else Predictor
            found[task] = kind(path, mesh.device, max_bytes=max_bytes)
    return Models(**found)


def tell_tunnel(port: int, *, is_loopback: bool) -> list[str]:
    """How to reach a server that runs in a Slurm job, from one's own machine."""
    node, login = os.environ.get("SLURMD_NODENAME"), os.environ.get("SLURM_SUBMIT_HOST")
    if "SLURM_JOB_ID" not in os.environ or node is None or login is None:
        return []
    user = getpass.getuser()
    to = f"127.0.0.1:{port} -J {user}@{login} {user}@{node}" if is_loopback else f"{node}:{port} {user}@{login}"
    return [f"tunnel: ssh -N -L {port}:{to}", f"then open http://127.0.0.1:{port}"]


def say_served(cfg: ServeJob, report: Facts, run: Run) -> None:
    """How much was asked, and how quick the answers were."""
    del cfg
    for endpoint, figures in report["metrics"]["endpoints"].items():
        if "p50_ms" in figures and endpoint.startswith("/v1/"):
            num, others = figures["statuses"]["200"], sum(figures["statuses"].values()) - figures["statuses"]["200"]
            quantiles = f"half within {figures['p50_ms']:.0f} ms, 99 % within {figures['p99_ms']:.0f} ms"
            run.log(f"{endpoint}: {num} requests answered, {quantiles}; {others} refused")


JOBS = {"serve": Job(serve, say_served, group="serve", finishes_step=True, goes_on=True, fresh=True)}
