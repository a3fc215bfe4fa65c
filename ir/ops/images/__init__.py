"""Decoders of images, a file each for a format, written as kernels. See `ir.ops.image_files` for the ops."""
