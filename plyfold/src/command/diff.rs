//! `diff`: the files that differ between two images.

use std::io::{BufWriter, Write};

use serde_json::{Map, json};

use super::diff_args::Diff;
use super::listed::{JsonList, escaped, text};
use super::pipe::Pipe;
use super::session::Session;
use super::terminal::Terminal;
use crate::blocking::{Stop, blocking};
use crate::tree::MergedTree;
use crate::{
    Difference, Differences, Error, FileChange, ImageSourceExt as _, PullOptions, PulledImage, Result,
};

/// Bytes gathered before they are written to standard output.
const GATHER: usize = 256 << 10;

pub(crate) async fn show(session: &Session, options: Diff) -> Result<()> {
    let Diff { before, after, stat, ignore_times, reading } = options;
    let policy = reading.policy.map(Into::into);
    let before = session.read(&before, policy, PullOptions::default()).await?;
    let after = session.read(&after, policy, PullOptions::default()).await?;
    let terminal = session.terminal;
    let trees = if has_same_layers(session, &before, &after).await? {
        None
    } else {
        let limits = reading.bounds.layer();
        let before = session.images.merged(&before, limits.clone()).await?;
        Some((before, session.images.merged(&after, limits).await?))
    };
    blocking(move |stop| {
        let differences =
            trees.as_ref().map(|(before, after)| compared(before, after, ignore_times).until(stop));
        let found = differences.into_iter().flatten();
        if stat { counted(found, terminal, stop) } else { listed(found, terminal, stop) }
    })
    .await
}

/// Whether both have the same layers: then nothing of them has to be read.
async fn has_same_layers(session: &Session, before: &PulledImage, after: &PulledImage) -> Result<bool> {
    let diff_ids = async |image| session.images.source(image).config().await?.diff_ids();
    Ok(diff_ids(before).await? == diff_ids(after).await?)
}

fn compared<'a>(before: &'a MergedTree, after: &'a MergedTree, ignore_times: bool) -> Differences<'a> {
    let differences = Differences::new(before, after);
    if ignore_times { differences.ignoring_times() } else { differences }
}

fn listed(
    mut found: impl Iterator<Item = Result<Difference>>,
    terminal: Terminal,
    stop: &Stop,
) -> Result<()> {
    let mut pipe = Pipe::new(stop);
    let mut out = BufWriter::with_capacity(GATHER, &mut pipe);
    let written = if terminal.json {
        let mut list = JsonList::new(&mut out);
        let put = found.try_for_each(|one| list.object(&document(&one?)));
        put.and_then(|()| list.end())
    } else {
        let put = found.try_for_each(|one| out.write_all(line(&one?).as_bytes()).map_err(failed));
        // Also what was found before an error.
        put.and(out.flush().map_err(failed))
    };
    drop(out);
    pipe.outcome(written)
}

fn counted(found: impl Iterator<Item = Result<Difference>>, terminal: Terminal, stop: &Stop) -> Result<()> {
    let (mut added, mut changed, mut removed) = (0_u64, 0_u64, 0_u64);
    for one in found {
        stop.check()?;
        match one?.change {
            FileChange::Added => added += 1,
            FileChange::Removed => removed += 1,
            _ => changed += 1,
        }
    }
    let document = json!({ "added": added, "changed": changed, "removed": removed });
    terminal.show(&document, || format!("{added} added, {changed} changed, {removed} removed\n"))
}

/// `+` and `-` in front of what is in one of the images, `~` in front of what is in both.
fn line(one: &Difference) -> String {
    let path = escaped(&absolute(one));
    match &one.change {
        FileChange::Added => format!("+ {path}\n"),
        FileChange::Removed => format!("- {path}\n"),
        FileChange::Changed(fields) => {
            let fields: Vec<String> = fields.iter().map(ToString::to_string).collect();
            format!("~ {path} ({})\n", fields.join(", "))
        }
        _ => format!("~ {path}\n"),
    }
}

fn document(one: &Difference) -> serde_json::Value {
    let mut object = Map::new();
    text(&mut object, "path", &absolute(one));
    let (change, fields) = match &one.change {
        FileChange::Added => ("added", None),
        FileChange::Removed => ("removed", None),
        FileChange::Changed(fields) => ("changed", Some(fields)),
        _ => ("changed", None),
    };
    object.insert("change".to_owned(), change.into());
    if let Some(fields) = fields {
        object.insert("fields".to_owned(), fields.iter().map(ToString::to_string).collect());
    }
    object.into()
}

fn absolute(one: &Difference) -> Vec<u8> {
    [b"/", one.path.as_bytes()].concat()
}

fn failed(error: std::io::Error) -> Error {
    Error::io("writing to standard output", error)
}
