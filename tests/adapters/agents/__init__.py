"""The agents' doors: LangChain's middleware and LlamaIndex's Memory."""
