//! Entry point of the program; see the library of the same name.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    shadowmesh::cli::main()
}
