"""What README.md and docs/*.md are generated from: `make readme`."""
