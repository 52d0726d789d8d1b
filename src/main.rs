//! The binary: everything is in the library, see `lib.rs`.

fn main() {
    tare::main();
}
