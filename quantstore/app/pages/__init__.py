"""The pages of the app: each picks, asks and draws."""
