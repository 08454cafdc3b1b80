"""The report: results of ``unspool prove`` and ``unspool bench`` as one HTML file."""
