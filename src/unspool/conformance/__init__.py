"""Contract tests of methods and of backends, for those who write them.

``unspool check NAME`` runs what a registered method of any kind must pass, ``pytest --pyargs unspool.conformance`` runs
it for all of them, and ``session.check_backend`` is for a backend. Checks are plain functions; see ``check``.
"""
