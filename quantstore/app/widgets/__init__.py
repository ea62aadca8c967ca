"""What several pages draw or ask with, a module for each noun."""
