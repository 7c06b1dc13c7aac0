"""An HTTP server: OpenAI's completions, and streams as resources. It takes the extra ``serve``."""
