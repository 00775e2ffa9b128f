//! How the program is linked.
//!
//! It is loaded at any address, and its tables of pointers then have to be told where: 280,000 relocations of 24 bytes, which the
//! loader reads at every start and which stay in memory. Packed they are an eightieth of that. The loader of glibc knows
//! them from 2.36 on, so they are packed where the program is built for the machine it is built on and that has such a glibc.

use std::process::Command;

const FLAG: &str = "cargo:rustc-link-arg-bins=-Wl,-z,pack-relative-relocs";

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let is = |variable: &str, value: &str| std::env::var(variable).is_ok_and(|found| found == value);
    let is_native = std::env::var("TARGET") == std::env::var("HOST");
    let is_glibc = is("CARGO_CFG_TARGET_OS", "linux") && is("CARGO_CFG_TARGET_ENV", "gnu");
    if is_native && is_glibc && glibc_version().is_some_and(|version| version >= (2, 36)) {
        println!("{FLAG}");
    }
}

/// The version of this machine's glibc.
fn glibc_version() -> Option<(u32, u32)> {
    let said = Command::new("getconf").arg("GNU_LIBC_VERSION").output().ok()?;
    let said = String::from_utf8(said.stdout).ok()?;
    let (major, minor) = said.trim().strip_prefix("glibc ")?.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}
