"""A federation under NVFlare: our Flower app, unchanged, as a job of NVFlare's.

NVFlare starts server and nodes and carries the letters, by identities and keys of its own. So a
node's home is found by the name of NVFlare's client (:func:`fedbbpt.sites.apps.home_of`).

    python -m fedbbpt.sites.nvflare CONFIG --out DIR --homes nodes        in its simulator, here
    python -m fedbbpt.sites.nvflare CONFIG --out DIR --job DIR --nodes 2  as a job to submit
"""

from __future__ import annotations

import os
import sys
from argparse import ArgumentParser
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from fedbbpt.config import Config, read
from fedbbpt.errors import ConfigError, FedbbptError, MissingExtra, RunDirError, UsageError
from fedbbpt.rundir import FLOWER, MARK, RESULT, refuse_unless_free, reopen
from fedbbpt.sites import launch
from fedbbpt.sites.apps import HOMES, OUTCOME
from fedbbpt.sites.server import FEDERATION, came_of, give, over_flower
from fedbbpt.sites.site import NODE

NAME = "fedbbpt"
"""Of the job, and of its folder."""


def recipe(config: Config, out: Path, nodes: int, overwrite: bool, resume: bool) -> Any:
    """NVFlare's recipe of a run, whose orders and results lie with NVFlare's server.

    Args:
        config: as for `fedbbpt server`.
        out: the run directory.
        nodes: clients of NVFlare's that take part.
        overwrite: replace an old run in ``out``.
        resume: go on with the one in ``out``.

    Raises:
        UsageError: the request is at fault; nothing was written.
    """
    _installed()
    tree = over_flower(config).tree()
    config = Config.model_validate({**tree, "engine": {"nodes": nodes, **tree["engine"]}})
    if resume:
        reopen(out, config)
    elif (out / "state" / MARK).is_file() and not overwrite:
        raise RunDirError(f"{out} holds a run; use --resume, --overwrite or another --out")
    else:
        refuse_unless_free(out, overwrite)
    home = (out / FLOWER).resolve()
    home.mkdir(parents=True, exist_ok=True)
    (home / FEDERATION).write_text(config.toml(), encoding="utf-8")
    # NVFlare says who may join; nodes are asked their names.
    give(out, {"config": str(home / FEDERATION), "resume": resume, "overwrite": overwrite}, None)
    from nvflare.app_opt.flower.recipe import FlowerRecipe

    return FlowerRecipe(
        name=NAME,
        flower_content=str(launch.app_folder(home)),
        min_clients=nodes,
        superlink_ready_timeout=launch.START,
        run_config={"home": str(home)},
    )


def simulate(made: Any, homes: Path, clients: list[str], home: Path) -> None:
    """Run a recipe in NVFlare's simulator, which says a lot, with clients by the names of homes.

    Raises:
        ChildFailed: it came to nothing.
    """
    from nvflare.recipe import SimEnv

    os.environ.update(launch.environment(home), **{HOMES: str(homes.resolve())})
    try:
        made.run(SimEnv(clients=clients, workspace_root=str(home / "nvflare")))
    except RuntimeError as error:
        raise launch.ChildFailed(f"NVFlare: {error}") from None
    if not (home / OUTCOME).is_file():
        raise launch.ChildFailed(f"the job left no result; its logs are in {home / 'nvflare'}")


def _installed() -> None:
    try:
        version("nvflare")
        flwr = version("flwr")
    except PackageNotFoundError as error:
        raise MissingExtra(str(error.name), "nvflare") from None
    if not (1, 28) <= tuple(map(int, flwr.split(".")[:2])) < (1, 35):
        # 1.35 took out options with which NVFlare starts it, who only waits a minute then.
        raise ConfigError(
            f"flwr {flwr} is installed, which NVFlare 2.9 cannot start; it needs flwr>=1.28,<1.35, "
            "in an environment of its own: pip install 'fedbbpt[nvflare]'"
        )


def main() -> None:
    """Run a federation in NVFlare's simulator, or write a job for NVFlare."""
    told = ArgumentParser("python -m fedbbpt.sites.nvflare", description=main.__doc__)
    told.add_argument("config", type=Path, help="as for fedbbpt server")
    told.add_argument("--out", type=Path, required=True, help="run directory, beside the server")
    told.add_argument("--homes", type=Path, default=Path("nodes"), help="of nodes, to simulate")
    told.add_argument("--job", type=Path, help="a folder to write a job to, instead")
    told.add_argument("--nodes", type=int, help="clients of that job")
    told.add_argument("--set", action="append", default=[], help="table.key=value over the config")
    told.add_argument("--overwrite", action="store_true", help="replace an old run")
    told.add_argument("--resume", action="store_true", help="go on with an old run")
    asked = told.parse_args()
    try:
        clients = sorted(file.parent.name for file in asked.homes.glob(f"*/{NODE}"))
        nodes = asked.nodes or len(clients)
        if not nodes or not (asked.job or clients):
            raise ConfigError(
                f"{asked.homes} holds no home of a node; make one for each with: "
                "fedbbpt node --dry-run"
            )
        made = recipe(
            read(asked.config, asked.set), asked.out, nodes, asked.overwrite, asked.resume
        )
        if asked.job:
            made.export(str(asked.job))
            print(f"next      nvflare job submit -j {asked.job / NAME}")
            return
        simulate(made, asked.homes, clients, (asked.out / FLOWER).resolve())
        for warning in came_of(asked.out).warnings:
            print(f"warning   {warning}")
    except FedbbptError as error:
        print(f"fedbbpt: {error}", file=sys.stderr)
        raise SystemExit(2 if isinstance(error, UsageError) else 1) from None
    print(f"finished  {asked.out / RESULT}")


if __name__ == "__main__":
    main()
