"""The TGI dialect: Hugging Face's text-generation-inference, as its clients and `huggingface_hub` speak it."""
