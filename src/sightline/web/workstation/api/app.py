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
from sightline.web.workstation.store.database import measure_free_bytes

API = "/api/v1"
ROUTERS: tuple[APIRouter, ...] = (
    people.router,
    reads.router,
    images.router,
    leads.router,
    decisions.router,
    compare.router,
)


def find_static_folder() -> Path:
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
        free_bytes=lambda: measure_free_bytes(desk.options.keep),
    )  # fmt: skip
    folder = find_static_folder()

    @app.get("/healthz", include_in_schema=False)
    def get_health() -> dict[str, bool]:
        return {"ok": True}

    @app.get("/readyz", include_in_schema=False)
    def get_readiness() -> Response:
        from sqlalchemy import text

        with desk.database.reading() as connection:
            connection.execute(text("SELECT 1"))
        return JSONResponse({"ok": True})

    @app.get(f"{API}/openapi.json", include_in_schema=False)
    def get_openapi() -> dict[str, Any]:
        return app.openapi()

    @app.get("/favicon.ico", include_in_schema=False)
    def get_favicon() -> Response:
        for name in ("favicon.ico", "favicon.svg"):
            if (folder / name).is_file():
                return FileResponse(folder / name)
        return Response(status_code=404)

    @app.get("/", include_in_schema=False)
    def get_page(request: Request, token: str = "") -> Response:
        if token:
            response: Response = RedirectResponse("/", 303)
            if people.sign_in_alone(token, desk):
                people.set_cookie(response, desk, people.start_new_session(desk.alone_person(), request, desk))
            return response
        return FileResponse(folder / "index.html", headers={"Cache-Control": "no-cache"})

    app.mount("/static", StaticFiles(directory=folder, check_dir=False), name="static")
    return app
