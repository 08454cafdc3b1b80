"""The report: results of ``unspool prove``, ``bench`` and ``tradeoff`` as one HTML file."""
