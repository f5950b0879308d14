//! The name by which programs that were linked to the library of this build ask for it.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libpubsub.so.0");
}
