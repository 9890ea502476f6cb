"""Tests: cross."""
