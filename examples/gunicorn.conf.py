"""gunicorn reads this file by itself. Nothing in it is needed by the metrics: no hook, no post_fork.

A worker starts its own thread and its own connection when it needs them, also with preload_app, and flushes what it has
recorded when gunicorn ends it, within the graceful timeout.
"""

wsgi_app = "examples.factory:create_app()"
bind = "127.0.0.1:8000"
workers = 2
threads = 4
preload_app = True
max_requests = 10_000
graceful_timeout = 30
