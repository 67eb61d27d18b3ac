"""The bytes of `layers.zst` and of the optional planes (docs/format.md): quantise, predict, pack, and back."""
