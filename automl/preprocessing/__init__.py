"""Raw input to tensor, by the same means in data preparation and in the exported file."""
