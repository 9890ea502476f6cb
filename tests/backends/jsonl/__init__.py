"""Tests: jsonl."""
