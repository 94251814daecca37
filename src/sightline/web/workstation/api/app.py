"""The application: guard, routes, static files."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import FileResponse, JSONResponse, RedirectResponse, Response
from starlette.staticfiles import StaticFiles

from sightline.web.workstation.api import compare, decisions, images, leads, people, reads
from sightline.web.workstation.api.guard import Guard
from sightline.web.workstation.api.refusals import register
from sightline.web.workstation.service import Workstation
from sightline.web.workstation.store.database import free_bytes

API = "/api/v1"
ROUTERS: tuple[APIRouter, ...] = (
    people.router,
    reads.router,
    images.router,
    leads.router,
    decisions.router,
    compare.router,
)


def static_folder() -> Path:
    """The page's files, as packaged."""
    return Path(str(resources.files("sightline.web.workstation") / "static"))


def create_app(desk: Workstation) -> FastAPI:
    """The application of a workstation."""
    app = FastAPI(title="sightline workstation", openapi_url=None, docs_url=None, redoc_url=None)
    app.state.workstation = desk
    register(app)
    for router in ROUTERS:
        app.include_router(router, prefix=API)
    app.add_middleware(
        Guard, hosts=desk.options.hosts, origins=desk.options.origins,
        free_bytes=lambda: free_bytes(desk.options.keep),
    )  # fmt: skip
    folder = static_folder()

    @app.get("/healthz", include_in_schema=False)
    def healthz() -> dict[str, bool]:
        return {"ok": True}

    @app.get("/readyz", include_in_schema=False)
    def readyz() -> Response:
        from sqlalchemy import text

        with desk.database.reading() as connection:
            connection.execute(text("SELECT 1"))
        return JSONResponse({"ok": True})

    @app.get(f"{API}/openapi.json", include_in_schema=False)
    def openapi() -> dict[str, Any]:
        return app.openapi()

    @app.get("/favicon.ico", include_in_schema=False)
    def favicon() -> Response:
        for name in ("favicon.ico", "favicon.svg"):
            if (folder / name).is_file():
                return FileResponse(folder / name)
        return Response(status_code=404)

    @app.get("/", include_in_schema=False)
    def page(request: Request, token: str = "") -> Response:
        if token:
            response: Response = RedirectResponse("/", 303)
            if people.sign_in_alone(token, desk):
                people.set_cookie(response, desk, people.new_session(desk.alone_person(), request, desk))
            return response
        return FileResponse(folder / "index.html", headers={"Cache-Control": "no-cache"})

    app.mount("/static", StaticFiles(directory=folder, check_dir=False), name="static")
    return app
