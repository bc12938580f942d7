//! Compiles this package's copy of the crate against loom.

fn main() {
    println!("cargo::rustc-cfg=offthread_loom");
}
