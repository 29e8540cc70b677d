"""Where samples come from: an `.npz`, a folder of images, or a function."""
