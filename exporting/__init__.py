"""Students in their users' hands: Hugging Face folders, ONNX, ExecuTorch, LiteRT, and their proof. Nothing here trains."""
