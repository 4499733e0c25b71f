"""`parallel` side by side with its peers, in one run: `hatch run bench`. How to read it is in docs/design.md."""
