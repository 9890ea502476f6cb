"""The ZeroDB engine, over the local server of its API."""
