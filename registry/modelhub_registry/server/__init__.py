"""The registry over HTTP: an API for programs (`routes.py`), pages for people (`pages.py`), tokens for those who write.

    from modelhub_registry.server.app import create_app
    app = create_app(Served("models-registry"), Options())           # any ASGI server runs it

`modelhub registry serve` does so with uvicorn. Reading needs no token unless the server is private; writing does.
Everything about one request's safety (host, size, token, audit) is in `guard.py`.
"""
