"""Local servers for tests: real ones from wheels, and stand-ins of services."""
