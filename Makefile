build:
	cargo build
