"""A gunicorn configuration. The metrics need none of it, and no post_fork hook.

Each worker starts its own thread and connection, also with preload_app, and flushes when gunicorn stops it, within the
graceful timeout.
"""

wsgi_app = "examples.factory:create_app()"
bind = "127.0.0.1:8000"
workers = 2
threads = 4
preload_app = True
max_requests = 10_000
graceful_timeout = 30
