//! Measures plyfold beside its peers, and feeds it damaged inputs. How to run it: `benches/README.md`.

#![expect(clippy::print_stdout, reason = "tables on standard output are what this program is for")]
#![expect(clippy::cast_precision_loss, reason = "sizes that are measured have less than 53 bits")]

mod compare;
mod fuzz;
mod halves;
mod result;

use std::env;
use std::ffi::OsString;
use std::path::Path;

use result::Result;

fn main() -> Result<()> {
    let arguments: Vec<_> = env::args_os().skip(1).collect();
    match arguments.as_slice() {
        [verb, rest @ ..] if verb == "compare" => compare::run(rest),
        [verb, target, seconds, rest @ ..] if verb == "fuzz" && rest.len() < 2 => {
            let number =
                |text: &OsString| -> Result<u64> { Ok(text.to_str().ok_or("a number is text")?.parse()?) };
            let target = target.to_str().ok_or("a target is text")?;
            fuzz::run(target, number(seconds)?, rest.first().map_or(Ok(0), number)?, seconds == "0")
        }
        [verb, gzip] if verb == "inflate" => {
            println!("{}", halves::inflate(Path::new(gzip))?);
            Ok(())
        }
        [verb, out, layers @ ..] if verb == "merge" => halves::merge(Path::new(out), layers),
        [verb, format, out, layer] if verb == "whole-of" => {
            halves::whole(format.to_str().ok_or("a format is text")?, Path::new(out), Path::new(layer))
        }
        _ => Err("usage: plyfold-bench compare [OPTION | CASE]... | fuzz TARGET SECONDS [NUMBER]".into()),
    }
}
