"""Contract tests of methods and backends, for their authors.

``unspool check NAME`` runs the tests of a registered method of any kind, ``pytest --pyargs unspool.conformance`` runs
them for all methods, and ``session.check_backend`` tests a backend. Checks are plain functions; see ``check``.
"""
