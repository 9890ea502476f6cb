"""The integration points of agents: LangChain's middleware and LlamaIndex's Memory."""
