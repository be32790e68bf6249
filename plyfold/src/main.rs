//! The `plyfold` program.

fn main() -> std::process::ExitCode {
    plyfold::command::main()
}
