//! Decides how the program starts, and links it so.
//!
//! *Freestanding* (release profiles): own entry point, no libc, one static file laid out by `layout.ld`. It needs
//! `panic = "abort"`: without the standard library stable Rust has nothing to unwind with.
//!
//! *Hosted* (the dev profile, which unwinds so that tests can): the C library calls `main`. All the rest of the program
//! is the same.

use std::env::var;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=layout.ld");
    println!("cargo:rustc-check-cfg=cfg(freestanding)");
    if var("PROFILE").is_ok_and(|profile| profile == "release") {
        link_freestanding();
    }
}

fn link_freestanding() {
    let folder = var("CARGO_MANIFEST_DIR").expect("cargo sets it for build scripts");
    println!("cargo:rustc-cfg=freestanding");
    for argument in ["-nostartfiles", "-nostdlib", "-static", "-no-pie", "-Wl,--build-id=none"] {
        println!("cargo:rustc-link-arg-bins={argument}");
    }
    println!("cargo:rustc-link-arg-bins=-Wl,-T,{folder}/layout.ld");
}
