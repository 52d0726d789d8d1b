//! The payload brings its own entry point, so that it is a few pages and nothing of it is a C library's.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    for argument in ["-nostartfiles", "-nostdlib", "-static", "-no-pie"] {
        println!("cargo:rustc-link-arg-bin=payload={argument}");
    }
}
