"""The tests: of behaviour, over every engine and in both colours."""
