"""Serve this folder: python examples/web/serve.py --model best.onnx

Only this machine can open it, unless --host says otherwise: --host 0.0.0.0 opens it to all that can reach this machine,
such as a phone in the same network. The two headers let the browser use several threads; without them, and over http
from another device, the page works on one.
"""

import argparse
import contextlib
import functools
import socket
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
        # A browser would keep the network of an earlier run where that of this --model is older.
        self.send_header('Cache-Control', 'no-store' if self._is_model(getattr(self, 'path', '')) else 'no-cache')
        super().end_headers()

    def translate_path(self, path: str) -> str:
        return str(self.model) if self._is_model(path) else super().translate_path(path)

    def _is_model(self, path: str) -> bool:
        return self.model is not None and path.split('?', maxsplit=1)[0] == '/model.onnx'

    def handle(self) -> None:
        with contextlib.suppress(ConnectionError):  # a browser that does not want the rest
            super().handle()

    def log_message(self, *_args) -> None:
        pass


DIST = HERE / 'node_modules/onnxruntime-web/dist'
RUNTIME = ('ort.wasm.min.mjs', 'ort-wasm-simd-threaded.mjs', 'ort-wasm-simd-threaded.wasm')
PAGE = ('index.html', 'page.js', 'detector.js', 'example.jpg', 'sw.js')


def sizes(model: Path | None) -> str:
    """What a browser loads, in words."""
    network = model or HERE / 'model.onnx'
    parts = {
        'page': sum((HERE / name).stat().st_size for name in PAGE),
        'runtime': sum((DIST / name).stat().st_size for name in RUNTIME),
        'network': network.stat().st_size if network.is_file() else 0,
    }
    each = ', '.join(f'{name} {size / 1e6:.2f}' for name, size in parts.items())
    return f'{sum(parts.values()) / 1e6:.1f} MB to load ({each})'


def address() -> str:
    """Of this machine in its network; nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(('192.0.2.1', 9))  # an address for documentation: the system only chooses the way to it
            return str(probe.getsockname()[0])
        except OSError:
            return socket.gethostname()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--model', type=Path, metavar='ONNX', help='for the page (default: model.onnx beside it)')
    parser.add_argument('--port', type=int, default=8000, help='0: any that is free (default %(default)s)')
    parser.add_argument(
        '--host', default='127.0.0.1', help='address to listen on; 0.0.0.0: all of this machine (default %(default)s)'
    )
    args = parser.parse_args()
    if args.model and not args.model.is_file():
        parser.error(f'--model: there is no file {args.model}')
    if not all((DIST / name).is_file() for name in RUNTIME):
        parser.error(f'onnxruntime-web is missing: run "npm ci" in {HERE}')
    Handler.model = args.model
    try:
        server = ThreadingHTTPServer((args.host, args.port), functools.partial(Handler, directory=str(HERE)))
    except (OSError, OverflowError) as error:  # a port over 65535
        parser.error(f'--host {args.host}, --port {args.port}: {getattr(error, "strerror", None) or error}')
    with server:
        host = address() if args.host == '0.0.0.0' else args.host
        print(f'http://{host}:{server.server_port}/ (Ctrl-C ends); {sizes(args.model)}', flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            server.serve_forever()


if __name__ == '__main__':
    main()
