//! The shim as a program of its own, which release builds of rswarm carry inside.

use std::process::ExitCode;

fn main() -> ExitCode {
    shim::main(&std::env::args_os().skip(1).collect::<Vec<_>>())
}
