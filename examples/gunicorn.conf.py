"""A gunicorn configuration. The metrics require no settings here, and no post_fork hook.

Each worker starts its own thread and connection, even with preload_app, and flushes within the graceful timeout when
gunicorn stops it.
"""

wsgi_app = "examples.factory:create_app()"
bind = "127.0.0.1:8000"
workers = 2
threads = 4
preload_app = True
max_requests = 10_000
graceful_timeout = 30
