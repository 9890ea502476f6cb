"""The Tablestore engine, against the local server."""
