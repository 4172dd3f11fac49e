"""A page to try the spectral tokenizer: `python hub_configs/space/app.py`, or a Space on the Hub.

Environment variables say which models it shows, and what a visitor may ask of it: `settings.py`.
"""

import os


# Before Gradio is imported: no telemetry.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"

import logging  # noqa: E402
import signal  # noqa: E402
import sys  # noqa: E402
import tempfile  # noqa: E402
from pathlib import Path  # noqa: E402


HERE = Path(__file__).resolve().parent
#: The page asks its own server for everything, and the browser holds it to that.
CONTENT_SECURITY_POLICY = "default-src 'self' data: blob: 'unsafe-inline' 'unsafe-eval'; object-src 'none'"


class OwnServerOnly:
    """ASGI middleware that adds `CONTENT_SECURITY_POLICY` to every answer."""

    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send) -> None:
        async def send_with_header(message) -> None:
            if message["type"] == "http.response.start":
                header = (b"content-security-policy", CONTENT_SECURITY_POLICY.encode())
                message = {**message, "headers": [*message.get("headers", ()), header]}
            await send(message)

        await self.app(scope, receive, send_with_header)


def main() -> None:
    """Load the models, make the examples, serve until stopped."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # by way of the `finally` below
    with tempfile.TemporaryDirectory(prefix="page-") as folder:
        tempfile.tempdir = folder  # so that whatever is on disk goes with the page
        os.environ["GRADIO_TEMP_DIR"] = os.path.join(folder, "uploads")
        import gradio as gr
        from examples import make_examples
        from gradio.themes.utils.fonts import Font
        from loading import load_models
        from page import Page
        from reading import Reader
        from settings import read_settings
        from starlette.middleware import Middleware

        settings = read_settings()
        reader = Reader(settings.max_seconds, settings.max_memory)
        try:
            page = Page(settings, load_models(settings), reader, make_examples(Path(folder)))
            page.blocks.launch(
                share=False, ssr_mode=False, pwa=False, run_history=False, enable_monitoring=False, footer_links=[],
                max_file_size=settings.max_megabytes * 2**20, state_session_capacity=50,
                app_kwargs={"middleware": [Middleware(OwnServerOnly)]},
                theme=gr.themes.Default(
                    primary_hue="blue", neutral_hue="slate", font=Font("sans-serif"), font_mono=Font("monospace")
                ),
                css_paths=HERE / "style.css",
            )  # fmt: skip
        finally:
            reader.close()


if __name__ == "__main__":
    main()
