"""The commands of `worldtrace cluster`, a file each."""
