"""The whole conformance suite, over each engine: a fixture each."""
