"""What tests share: models, stores, pages, a browser."""
