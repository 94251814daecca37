"""OHIF's prebuilt pages (npm) before an Orthanc: one origin for both, as a hospital's proxy makes it."""

import http.server
import os
import threading
import urllib.error
import urllib.request
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from support.pacs import request

HOW = "npm pack @ohif/app@3.13.2, unpack it, and set SIGHTLINE_OHIF to its package/dist"
CONFIG = """window.config = {
  routerBasename: null, extensions: [], modes: [], showStudyList: true, maxNumberOfWebWorkers: 1,
  showCPUFallbackMessage: false, showWarningMessageForCrossOrigin: false, defaultDataSourceName: 'pacs',
  investigationalUseDialog: {option: 'never'}, studyPrefetcher: {enabled: false},
  dataSources: [{
    namespace: '@ohif/extension-default.dataSourcesModule.dicomweb', sourceName: 'pacs',
    configuration: {friendlyName: 'pacs', name: 'pacs', wadoUriRoot: '/dicom-web', qidoRoot: '/dicom-web',
      wadoRoot: '/dicom-web', qidoSupportsIncludeField: false, imageRendering: 'wadors',
      thumbnailRendering: 'wadors', enableStudyLazyLoad: true, supportsFuzzyMatching: false,
      supportsWildcard: true, omitQuotationForMultipartRequest: true}
  }],
};
"""


def require_ohif():
    """The folder of OHIF's pages; without it the test is skipped."""
    folder = os.environ.get("SIGHTLINE_OHIF", "")
    if not folder or not (Path(folder) / "index.html").is_file():
        pytest.skip(f"OHIF is not here ({HOW})")
    return Path(folder)


class Handler(http.server.SimpleHTTPRequestHandler):
    """Pages, their configuration, and everything under /dicom-web from the PACS."""

    pacs = None

    def do_GET(self):
        path = self.path.split("?")[0]
        if path.startswith("/dicom-web"):
            return self._pass_on()
        if path == "/app-config.js":
            return self._answer(200, "text/javascript", CONFIG.encode())
        if "." not in path.rpartition("/")[2]:
            self.path = "/index.html"  # a route of the page itself
        return super().do_GET()

    def _pass_on(self):
        asked = request(f"{self.pacs.url}{self.path}")
        asked.add_header("Accept", self.headers.get("Accept", "*/*"))
        try:
            with urllib.request.urlopen(asked, timeout=60) as answer:
                self._answer(answer.status, answer.headers.get("Content-Type", ""), answer.read())
        except urllib.error.HTTPError as error:
            self._answer(error.code, "text/plain", b"")

    def _answer(self, status, kind, body):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@contextmanager
def ohif(pacs):
    """Serve OHIF before a PACS; the address of its pages."""
    kind = type("PacsHandler", (Handler,), {"pacs": pacs})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(kind, directory=str(require_ohif())))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
