//! Selects how the program starts, and links it accordingly.
//!
//! *Freestanding* (release profiles): own entry point, no libc, one static file laid out by `layout.ld`. It needs
//! `panic = "abort"`: stable Rust cannot unwind without the standard library.
//!
//! *Hosted* (the dev profile, which unwinds so that tests can): the C library calls `main`. The rest of the program is
//! the same.

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
