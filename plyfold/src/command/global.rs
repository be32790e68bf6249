//! The options that every verb has.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::age;
use crate::Platform;

/// Options of every verb.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Options of every verb")]
pub(crate) struct Global {
    #[arg(
        long,
        global = true,
        value_name = "DIR|URI",
        help = "Where images are kept: a directory, or the URI of a bucket that machines share, such as s3://BUCKET/PREFIX \
                [default: PLYFOLD_STORE, XDG_DATA_HOME/plyfold, or ~/.local/share/plyfold]"
    )]
    pub(crate) store: Option<PathBuf>,
    #[arg(
        long,
        global = true,
        value_name = "URI",
        help = "A bucket that machines share, behind the store: what it has is taken from there, and what is fetched and made \
                is stored there, too [default: PLYFOLD_FLEET]"
    )]
    pub(crate) fleet: Option<String>,
    /// An option of the store or the fleet that has a URI, such as endpoint=URL; may be given several times; `stores` lists them
    #[arg(long, global = true, value_name = "KEY=VALUE")]
    pub(crate) store_option: Vec<String>,
    /// Which image of an index, as os/arch[/variant]; 'linux(+erofs)/arch' prefers one of EROFS layers [default: linux on
    /// this processor]; `append`, `config`, `copy`, `load`, `push` and `save` take several
    #[arg(long, global = true, value_parser = platform)]
    pub(crate) platform: Vec<Platform>,
    /// Write one JSON document to standard output, and progress and errors as JSON lines to standard error
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Show no progress: results, warnings and errors only
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,
    /// Show what was there already, where blobs come from, and notes
    #[arg(short, long, global = true, conflicts_with = "quiet")]
    pub(crate) verbose: bool,
    /// How long after its first failure a request may begin again, such as 90s; 0s tries once. A stall is noticed, each
    /// time, after 30s [default: 1m]
    #[arg(long, global = true, value_name = "TIME", value_parser = age::parse)]
    pub(crate) retry_max_time: Option<Duration>,
    /// An option of the image's backend, such as ca=FILE; may be given several times
    #[arg(short, long = "option", global = true, value_name = "KEY=VALUE")]
    pub(crate) option: Vec<String>,
}

fn platform(text: &str) -> Result<Platform, String> {
    text.parse().map_err(|_| {
        "write os/arch[/variant], such as linux/arm64, linux/arm/v7 or linux(+erofs)/amd64".to_owned()
    })
}
