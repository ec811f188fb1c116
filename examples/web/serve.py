"""Serve this folder on this machine only: python examples/web/serve.py --model best.onnx

The two headers let the browser use several threads; without them the page works on one.
"""

import argparse
import contextlib
import functools
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

HERE = Path(__file__).resolve().parent


class Handler(SimpleHTTPRequestHandler):
    """Files of this folder, and the model that was named."""

    extensions_map = SimpleHTTPRequestHandler.extensions_map | {'.mjs': 'text/javascript', '.wasm': 'application/wasm'}
    model: Path | None = None

    def end_headers(self) -> None:
        self.send_header('Cross-Origin-Opener-Policy', 'same-origin')
        self.send_header('Cross-Origin-Embedder-Policy', 'require-corp')
        self.send_header('Cache-Control', 'no-cache')
        super().end_headers()

    def translate_path(self, path: str) -> str:
        if self.model and path.split('?', maxsplit=1)[0] == '/model.onnx':
            return str(self.model)
        return super().translate_path(path)

    def log_message(self, *_args) -> None:
        pass


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--model', type=Path, metavar='ONNX', help='for the page (default: model.onnx beside it)')
    parser.add_argument('--port', type=int, default=8000, help='0: any that is free (default %(default)s)')
    args = parser.parse_args()
    if args.model and not args.model.is_file():
        parser.error(f'--model: there is no file {args.model}')
    if not (HERE / 'node_modules').is_dir():
        parser.error(f'onnxruntime-web is missing: run "npm ci" in {HERE}')
    Handler.model = args.model
    with ThreadingHTTPServer(('127.0.0.1', args.port), functools.partial(Handler, directory=str(HERE))) as server:
        print(f'http://127.0.0.1:{server.server_port}/ (Ctrl-C ends)', flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            server.serve_forever()


if __name__ == '__main__':
    main()
