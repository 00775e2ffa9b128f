//! How the program is linked, where the linker and the machine allow it.
//!
//! - **Order of functions.** A job runs 4 MB of the 120 MB of code, spread over all of it, and of a page that is used Linux maps
//!   64 KiB: 37 MiB of memory. So the functions that jobs run (`link/order.txt`, written by `link/renew.sh`) are put beside each
//!   other: 10 MiB. A symbol that another compiler or another version of a dependency names otherwise is left where it is.
//! - **Packed relocations.** The program is loaded at any address, and its tables of pointers then have to be told where: 280,000
//!   relocations of 24 bytes, which the loader reads at every start and which stay in memory. Packed they are an eightieth of
//!   that. The loader of glibc knows them from 2.36 on, so they are packed where the program is built for the machine it is built
//!   on and that has such a glibc.

use std::env;
use std::path::Path;
use std::process::{Command, Stdio};

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=link/order.txt");
    let is = |variable: &str, value: &str| env::var(variable).is_ok_and(|found| found == value);
    let is_native = env::var("TARGET") == env::var("HOST");
    let is_glibc = is("CARGO_CFG_TARGET_OS", "linux") && is("CARGO_CFG_TARGET_ENV", "gnu");
    if !is_native || !is_glibc {
        return;
    }
    if glibc_version().is_some_and(|version| version >= (2, 36)) {
        println!("cargo:rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
    let order =
        format!("-Wl,--symbol-ordering-file={}/link/order.txt", env::var("CARGO_MANIFEST_DIR").unwrap_or_default());
    // Other profiles have other symbols.
    if is("PROFILE", "release") && linker_takes(&order) {
        println!("cargo:rustc-link-arg-bins={order}");
        println!("cargo:rustc-link-arg-bins=-Wl,--no-warn-symbol-ordering");
    }
}

/// The version of this machine's glibc.
fn glibc_version() -> Option<(u32, u32)> {
    let said = Command::new("getconf").arg("GNU_LIBC_VERSION").output().ok()?;
    let said = String::from_utf8(said.stdout).ok()?;
    let (major, minor) = said.trim().strip_prefix("glibc ")?.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// Whether a program can be linked with an option: that of the order is one of LLVM's linker, which Rust brings on some systems.
fn linker_takes(option: &str) -> bool {
    let variable = |name| env::var(name).ok().filter(|value| !value.is_empty());
    let Some((compiler, folder)) = variable("RUSTC").zip(variable("OUT_DIR")) else { return false };
    let source = Path::new(&folder).join("probe.rs");
    let mut compile = Command::new(compiler);
    compile.arg(&source).arg("-o").arg(source.with_extension("")).arg(format!("-Clink-arg={option}"));
    compile.args(variable("CARGO_ENCODED_RUSTFLAGS").iter().flat_map(|flags| flags.split('\x1f')));
    compile.args(variable("RUSTC_LINKER").map(|linker| format!("-Clinker={linker}")));
    let written = std::fs::write(&source, "fn main() {}\n");
    written.is_ok() && compile.stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}
