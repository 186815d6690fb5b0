"""Students in their users' hands: Hugging Face folders, ONNX, ExecuTorch, and what proves them. Nothing here trains."""
