//! The `plyfold` program, and what a third party has registered. Only what is named here is linked: see `Cargo.toml`.

use example_backend as _;
use example_concat as _;
use example_cpio as _;

fn main() -> std::process::ExitCode {
    plyfold::command::main()
}
