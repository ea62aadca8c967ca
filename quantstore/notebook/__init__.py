"""What a notebook shows: the app's charts of what a store holds, and small tables as HTML."""
