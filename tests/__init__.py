"""The tests: of behaviour, over every engine, sync and async."""
