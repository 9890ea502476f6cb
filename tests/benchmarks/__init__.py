"""The benchmarks themselves: what fails is named, and what is missed is marked."""
