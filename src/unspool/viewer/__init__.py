"""The viewer: traces as one HTML file to look at."""
